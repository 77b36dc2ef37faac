#pragma once
#include <cstdint>
#include <vector>

#include "data/images/image.h"

namespace permafrost {

enum class PngEffort : uint8_t {
  kSmall,  ///< libpng's defaults
  kFast,   ///< no filters and little search: a third of the time, for many small pictures
};

/// A PNG file in memory, 8 bits; channels 1 (grey) or 3 (RGB). The pixels come back exactly; the bytes are those of the
/// installed libpng and zlib. Errors: kInvalidArgument for other channels or no pixels; kInternal with libpng's words.
std::vector<uint8_t> encode_png(const ImageView& image, PngEffort effort = PngEffort::kSmall);

}  // namespace permafrost
