#include "data/images/encode.h"

#include <png.h>

#include "core/base/check.h"
#include "core/base/narrow.h"

namespace permafrost {

std::vector<uint8_t> encode_png(const ImageView& image, PngEffort effort) {
  PERMAFROST_CHECK((image.channels == 1 || image.channels == 3) && image.width > 0 && image.height > 0,
                   "encode_png: 1 or 3 channels and at least one pixel are expected; got ", image.channels,
                   " channels and ", image.width, " x ", image.height, " pixels");
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = narrow<png_uint_32>(image.width);
  png.height = narrow<png_uint_32>(image.height);
  png.format = image.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png.flags = effort == PngEffort::kFast ? PNG_IMAGE_FLAG_FAST : 0;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::vector<uint8_t> bytes(size);
  if (!png_image_write_to_memory(&png, bytes.data(), &size, 0, image.pixels, narrow<png_int_32>(image.row_bytes),
                                 nullptr))
    fail(ErrorKind::kInternal, "encode_png: a file of at most ", bytes.size(), " bytes is expected; got '", png.message,
         "' from libpng");
  bytes.resize(size);
  return bytes;
}

}  // namespace permafrost
