#include "data/images/decode.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/check.h"
#include "data/files/read_file.h"
#include "data/images/codecs.h"

namespace permafrost {
namespace {

constexpr std::array<uint8_t, 3> kJpegStart{0xFF, 0xD8, 0xFF};
constexpr std::array<uint8_t, 8> kPngStart{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

template <size_t N>
bool starts_with(std::span<const uint8_t> bytes, const std::array<uint8_t, N>& start) {
  return bytes.size() >= N && std::equal(start.begin(), start.end(), bytes.begin());
}

std::string first_bytes(std::span<const uint8_t> bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : bytes.first(std::min<size_t>(bytes.size(), 8))) {
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
    text += ' ';
  }
  return text;
}

}  // namespace

void check_image_size(int64_t width, int64_t height, const DecodeOptions& options, std::string_view name) {
  if (width < 1 || height < 1 || width > options.max_pixels / height)
    fail(ErrorKind::kData, "decode_image: between 1 and ", options.max_pixels, " pixels are expected; got ", width,
         " x ", height, " [file=", name, "]");
}

void orient(const ImageView& in, int orientation, Image& out) {
  const bool turned = orientation >= 5 && orientation <= 8;
  out.set_up(turned ? in.height : in.width, turned ? in.width : in.height, in.channels);
  const int64_t right = in.width - 1, bottom = in.height - 1;
  for (int64_t y = 0; y < out.height; ++y) {
    uint8_t* to = out.row(y);
    for (int64_t x = 0; x < out.width; ++x, to += in.channels) {
      int64_t from_x = x, from_y = y;
      switch (orientation) {
        case 2:
          from_x = right - x;
          break;  // mirrored left to right
        case 3:
          from_x = right - x, from_y = bottom - y;
          break;  // upside down
        case 4:
          from_y = bottom - y;
          break;  // mirrored top to bottom
        case 5:
          from_x = y, from_y = x;
          break;  // transposed
        case 6:
          from_x = y, from_y = bottom - x;
          break;  // needs a quarter turn clockwise
        case 7:
          from_x = right - y, from_y = bottom - x;
          break;  // transposed over the other diagonal
        case 8:
          from_x = right - y, from_y = x;
          break;  // needs a quarter turn counter-clockwise
        default:
          break;
      }
      std::memcpy(to, in.row(from_y) + from_x * in.channels, static_cast<size_t>(in.channels));
    }
  }
}

void decode_image(std::span<const uint8_t> bytes, const DecodeOptions& options, std::string_view name, Image& rgb) {
  if (bytes.empty())
    fail(ErrorKind::kData, "decode_image: a JPEG or PNG file is expected; got an empty one [file=", name, "]");
  int orientation = 1;
  if (starts_with(bytes, kJpegStart)) {
    orientation = decode_jpeg(bytes, options, name, rgb);
  } else if (starts_with(bytes, kPngStart)) {
    orientation = decode_png(bytes, options, name, rgb);
  } else {
    fail(ErrorKind::kData, "decode_image: a JPEG or PNG file is expected; got ", bytes.size(),
         " bytes that begin with ", first_bytes(bytes), "[file=", name, "]");
  }
  if (orientation != 1) {
    Image upright;
    orient(rgb.view(), orientation, upright);
    std::swap(rgb, upright);
  }
}

void decode_image_file(const std::filesystem::path& file, const DecodeOptions& options, std::vector<uint8_t>& bytes,
                       Image& rgb) {
  read_binary_file(file, bytes);
  decode_image(bytes, options, file.string(), rgb);
}

}  // namespace permafrost
