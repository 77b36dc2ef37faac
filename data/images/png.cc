#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "core/base/check.h"
#include "data/images/codecs.h"

namespace permafrost {
namespace {

/// As with libjpeg: errors jump, so methods that call the library hold nothing with a destructor.
class PngReader {
 public:
  explicit PngReader(std::span<const uint8_t> bytes) : bytes_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    if (png_) info_ = png_create_info_struct(png_);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  bool read_header() {
    if (!png_ || !info_ || setjmp(png_jmpbuf(png_))) return false;
    png_set_read_fn(png_, this, on_read);
    png_read_info(png_, info_);
    return true;
  }

  /// Rows come out as RGB with 8 bits, except 16-bit grey, which stays as it is.
  bool start() {
    if (setjmp(png_jmpbuf(png_))) return false;
    if (!is_grey16()) {
      if (png_get_bit_depth(png_, info_) == 16) png_set_strip_16(png_);
      if (png_get_color_type(png_, info_) == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png_);
      if (png_get_color_type(png_, info_) == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png_);
      png_set_strip_alpha(png_);
      png_set_gray_to_rgb(png_);
    }
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  bool read_row(uint8_t* row) {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_read_row(png_, row, nullptr);
    return true;
  }

  /// The TIFF structure of an eXIf chunk, which may also follow the pixels.
  std::span<const uint8_t> exif() {
    png_bytep data = nullptr;
    png_uint_32 size = 0;
    if (setjmp(png_jmpbuf(png_))) return {};
    png_read_end(png_, info_);
    if (png_get_eXIf_1(png_, info_, &size, &data) == 0 || !data) return {};
    return {data, size};
  }

  bool is_grey16() const {
    return png_get_bit_depth(png_, info_) == 16 && png_get_color_type(png_, info_) == PNG_COLOR_TYPE_GRAY;
  }
  int64_t width() const { return png_get_image_width(png_, info_); }
  int64_t height() const { return png_get_image_height(png_, info_); }
  size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  int passes() const { return passes_; }
  bool truncated() const { return truncated_; }
  const char* message() const { return message_; }

 private:
  static void on_error(png_structp png, png_const_charp message) {
    auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
    std::snprintf(reader->message_, sizeof reader->message_, "%s", message);
    png_longjmp(png, 1);
  }
  static void on_read(png_structp png, png_bytep to, size_t count) {
    auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
    if (count > reader->bytes_.size() - reader->position_) {
      reader->truncated_ = true;
      png_error(png, "end of file");
    }
    std::memcpy(to, reader->bytes_.data() + reader->position_, count);
    reader->position_ += count;
  }

  std::span<const uint8_t> bytes_;
  size_t position_ = 0;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int passes_ = 1;
  char message_[256] = "out of memory";
  bool truncated_ = false;
};

/// Pillow converts 16-bit grey by clipping, not by shifting.
void grey16_to_rgb(const uint8_t* grey, int64_t width, uint8_t* rgb) {
  for (int64_t x = 0; x < width; ++x, grey += 2, rgb += 3) std::fill_n(rgb, 3, grey[0] != 0 ? uint8_t{255} : grey[1]);
}

}  // namespace

int decode_png(std::span<const uint8_t> bytes, const DecodeOptions& options, std::string_view name, Image& rgb) {
  PngReader reader(bytes);
  const auto refuse = [&] {
    if (reader.truncated())
      fail(ErrorKind::kData, "decode_image: a whole PNG file is expected; got one truncated at ", bytes.size(),
           " bytes [file=", name, "]");
    fail(ErrorKind::kData, "decode_image: a sound PNG file is expected; got '", reader.message(), "' in ", bytes.size(),
         " bytes [file=", name, "]");
  };
  if (!reader.read_header()) refuse();
  check_image_size(reader.width(), reader.height(), options, name);
  if (!reader.start()) refuse();
  rgb.set_up(reader.width(), reader.height());
  const bool grey16 = reader.is_grey16();
  PERMAFROST_CHECK(reader.row_bytes() == static_cast<size_t>(rgb.width * (grey16 ? 2 : 3)),
                   "decode_png: rows must have 3 bytes per pixel; got ", reader.row_bytes(), " for width ", rgb.width);
  std::vector<uint8_t> grey(grey16 ? reader.row_bytes() * static_cast<size_t>(rgb.height) : 0);
  for (int pass = 0; pass < reader.passes(); ++pass)  // interlaced rows are completed pass by pass
    for (int64_t y = 0; y < rgb.height; ++y)
      if (!reader.read_row(grey16 ? grey.data() + static_cast<size_t>(y) * reader.row_bytes() : rgb.row(y))) refuse();
  if (grey16)
    for (int64_t y = 0; y < rgb.height; ++y)
      grey16_to_rgb(grey.data() + static_cast<size_t>(y) * reader.row_bytes(), rgb.width, rgb.row(y));
  return options.orientation == OrientationPolicy::kApply ? exif_orientation(reader.exif()) : 1;
}

}  // namespace permafrost
