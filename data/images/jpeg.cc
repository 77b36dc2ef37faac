#include <jerror.h>
#include <jpeglib.h>  // after <cstdio>, which it needs

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "data/images/codecs.h"

namespace permafrost {
namespace {

/// libjpeg reports errors by a callback that must not return. Each method below that calls the library sets its own
/// return point and holds nothing with a destructor, so that jumping over its frame is defined.
class JpegReader {
 public:
  explicit JpegReader(std::span<const uint8_t> bytes) : bytes_(bytes) {
    std::memset(&info_, 0, sizeof info_);
    info_.err = jpeg_std_error(&errors_);
    errors_.error_exit = [](j_common_ptr info) {
      auto* reader = static_cast<JpegReader*>(info->client_data);
      info->err->format_message(info, reader->message_);
      std::longjmp(reader->jump_, 1);
    };
    errors_.emit_message = [](j_common_ptr info, int level) {
      if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF)
        static_cast<JpegReader*>(info->client_data)->truncated_ = true;
    };
    errors_.output_message = [](j_common_ptr) {};
    progress_.progress_monitor = [](j_common_ptr info) {
      auto* reader = static_cast<JpegReader*>(info->client_data);
      if (reader->info_.input_scan_number > kMaxScans) {
        std::snprintf(reader->message_, sizeof reader->message_, "more than %d scans", kMaxScans);
        std::longjmp(reader->jump_, 1);
      }
    };
    info_.client_data = this;
  }
  ~JpegReader() { jpeg_destroy_decompress(&info_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  bool read_header(bool with_exif) {
    if (setjmp(jump_)) return false;
    jpeg_create_decompress(&info_);
    info_.client_data = this;
    info_.progress = &progress_;
    jpeg_mem_src(&info_, bytes_.data(), bytes_.size());
    if (with_exif) jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  bool start() {
    if (setjmp(jump_)) return false;
    info_.out_color_space = info_.num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&info_);
    return true;
  }

  bool read_row(uint8_t* row) {
    if (setjmp(jump_)) return false;
    JSAMPROW rows[1] = {row};
    jpeg_read_scanlines(&info_, rows, 1);
    return true;
  }

  bool finish() {
    if (setjmp(jump_)) return false;
    jpeg_finish_decompress(&info_);
    return true;
  }

  /// The TIFF structure of the first EXIF marker, if any.
  std::span<const uint8_t> exif() const {
    static constexpr char kStart[6] = {'E', 'x', 'i', 'f', 0, 0};
    for (auto* marker = info_.marker_list; marker; marker = marker->next)
      if (marker->marker == JPEG_APP0 + 1 && marker->data_length > sizeof kStart &&
          std::memcmp(marker->data, kStart, sizeof kStart) == 0)
        return {marker->data + sizeof kStart, marker->data_length - sizeof kStart};
    return {};
  }

  int64_t width() const { return info_.image_width; }
  int64_t height() const { return info_.image_height; }
  int components() const { return info_.num_components; }
  bool truncated() const { return truncated_; }
  const char* message() const { return message_; }

 private:
  static constexpr int kMaxScans = 500;  // a real progressive file has about ten; thousands are an attack on our time

  std::span<const uint8_t> bytes_;
  jpeg_decompress_struct info_;
  jpeg_error_mgr errors_;
  jpeg_progress_mgr progress_{};
  std::jmp_buf jump_;
  char message_[JMSG_LENGTH_MAX] = "";
  bool truncated_ = false;
};

/// One row of inverted CMYK ("Adobe") to RGB, rounding products as Pillow does.
void cmyk_to_rgb(const uint8_t* cmyk, int64_t width, uint8_t* rgb) {
  for (int64_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const int black = cmyk[3];  // stored inverted: this is 255 - K
    for (int c = 0; c < 3; ++c) {
      const int product = (255 - cmyk[c]) * black + 128;
      const int value = black - (((product >> 8) + product) >> 8);
      rgb[c] = static_cast<uint8_t>(value < 0 ? 0 : value);
    }
  }
}

}  // namespace

int decode_jpeg(std::span<const uint8_t> bytes, const DecodeOptions& options, std::string_view name, Image& rgb) {
  JpegReader reader(bytes);
  const auto refuse = [&] {
    fail(ErrorKind::kData, "decode_image: a sound JPEG file is expected; got '", reader.message(), "' in ",
         bytes.size(), " bytes [file=", name, "]");
  };
  const auto refuse_truncated = [&] {
    fail(ErrorKind::kData, "decode_image: a whole JPEG file is expected; got one truncated at ", bytes.size(),
         " bytes [file=", name, "]");
  };
  const bool with_exif = options.orientation == OrientationPolicy::kApply;
  if (!reader.read_header(with_exif)) reader.truncated() ? refuse_truncated() : refuse();
  check_image_size(reader.width(), reader.height(), options, name);
  const int components = reader.components();
  if (components != 1 && components != 3 && components != 4)
    fail(ErrorKind::kData, "decode_image: a JPEG file must have 1, 3 or 4 components; got ", components,
         " [file=", name, "]");
  const int orientation = with_exif ? exif_orientation(reader.exif()) : 1;
  if (!reader.start()) refuse();
  rgb.set_up(reader.width(), reader.height());
  std::vector<uint8_t> cmyk(components == 4 ? static_cast<size_t>(reader.width()) * 4 : 0);
  for (int64_t y = 0; y < rgb.height; ++y) {
    if (!reader.read_row(components == 4 ? cmyk.data() : rgb.row(y))) refuse();
    if (reader.truncated()) refuse_truncated();
    if (components == 4) cmyk_to_rgb(cmyk.data(), rgb.width, rgb.row(y));
  }
  if (!reader.finish()) refuse();
  if (reader.truncated()) refuse_truncated();
  return orientation;
}

}  // namespace permafrost
