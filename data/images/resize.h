#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "data/images/image.h"

namespace permafrost {

enum class ResizeFilter { kBilinear, kBicubic };

/// Part of an image in its own coordinates; fractions of pixels are allowed.
struct ResizeBox {
  float left = 0, upper = 0, right = 0, lower = 0;
};

/// Working memory, reused between calls.
struct ResizeScratch {
  struct Axis {
    std::vector<int32_t> weights;              // taps per output pixel, fixed point
    std::vector<std::array<int64_t, 2>> taps;  // first source pixel and number of taps
    int64_t stride = 0;
  };
  Axis horizontal, vertical;
  std::vector<double> row_weights;
  std::vector<int32_t> sums;
  std::vector<uint8_t> between;
};

/// Antialiased resampling of u8 images, equal to Pillow's Image.resize((width, height), filter, box) to the bit: the
/// filter's support grows with the scale; weights are normalised, then rounded to 22 bits (halves away from zero);
/// first rows, then columns, rounded and clipped to u8 in between; a pass that changes nothing is left out. With a box,
/// taps may reach outside the box into the image, as in Pillow.
/// `out` must not be the memory of `source`. Errors: kInvalidArgument for empty sizes or a box outside the image.
/// Source: Pillow 10, src/libImaging/Resample.c.
void resize_image(const ImageView& source, ResizeFilter filter, int64_t width, int64_t height, ResizeScratch& scratch,
                  Image& out, const std::optional<ResizeBox>& box = std::nullopt);

}  // namespace permafrost
