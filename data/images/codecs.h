#pragma once
// The two decoders behind decode_image, and EXIF. Not for use outside this folder.
#include <cstdint>
#include <span>
#include <string_view>

#include "data/images/decode.h"

namespace permafrost {

/// Each fills `rgb` and returns the EXIF orientation: 1 when there is none or when options ignore it.
int decode_jpeg(std::span<const uint8_t> bytes, const DecodeOptions& options, std::string_view name, Image& rgb);
int decode_png(std::span<const uint8_t> bytes, const DecodeOptions& options, std::string_view name, Image& rgb);

/// Orientation in a TIFF structure ("II*\0..." or "MM\0*..."): 1 to 8, or 1 when it has none or is malformed.
int exif_orientation(std::span<const uint8_t> tiff);

/// Throws kData when an image has no pixels or more than options.max_pixels.
void check_image_size(int64_t width, int64_t height, const DecodeOptions& options, std::string_view name);

}  // namespace permafrost
