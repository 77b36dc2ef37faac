#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "data/images/image.h"

namespace permafrost {

/// What to do with the EXIF orientation of a photograph (JPEG APP1, PNG eXIf).
enum class OrientationPolicy {
  kIgnore,  ///< pixels as stored, like Image.open(f).convert("RGB") in the published pipelines
  kApply,   ///< turned and mirrored upright, like ImageOps.exif_transpose
};

struct DecodeOptions {
  OrientationPolicy orientation = OrientationPolicy::kIgnore;
  /// Images that claim more are refused before memory is taken; Pillow's own limit.
  int64_t max_pixels = 178'956'970;
};

/// Decodes a JPEG or PNG file in memory to RGB, with the pixels of Pillow's convert("RGB"): grey is repeated; palettes
/// are looked up; alpha and transparent colours are dropped without blending; 16-bit colour keeps the high byte, 16-bit
/// grey is clipped to 255 (that is what Pillow does); four-component JPEG is taken as inverted CMYK, R = k - C k / 255
/// with k = 255 - K. JPEG by libjpeg's accurate integer DCT and smooth ("fancy") chroma upsampling.
/// Errors: kData with `name`: empty, neither JPEG nor PNG, corrupt, truncated, too large.
void decode_image(std::span<const uint8_t> bytes, const DecodeOptions& options, std::string_view name, Image& rgb);

/// The same from a file; `bytes` is working memory. Errors: also kData when the file cannot be read.
void decode_image_file(const std::filesystem::path& file, const DecodeOptions& options, std::vector<uint8_t>& bytes,
                       Image& rgb);

/// `source` seen upright, for EXIF orientations 1 to 8 (others are taken as 1).
void orient(const ImageView& source, int orientation, Image& upright);

}  // namespace permafrost
