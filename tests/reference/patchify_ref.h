#pragma once
#include <cstddef>
#include <vector>

namespace permafrost::reference {

struct ImageSize {
  size_t batch, channels, height, width, patch;
};

/// Index into the images for every element of the patches, written as the convolution it stands for.
inline std::vector<size_t> patch_pixels(const ImageSize& s) {
  std::vector<size_t> pixels;
  for (size_t b = 0; b < s.batch; ++b)
    for (size_t row = 0; row < s.height / s.patch; ++row)
      for (size_t column = 0; column < s.width / s.patch; ++column)
        for (size_t c = 0; c < s.channels; ++c)
          for (size_t y = 0; y < s.patch; ++y)
            for (size_t x = 0; x < s.patch; ++x)
              pixels.push_back(((b * s.channels + c) * s.height + row * s.patch + y) * s.width + column * s.patch + x);
  return pixels;
}

template <typename S>
std::vector<S> patchify(const std::vector<S>& images, const ImageSize& s) {
  std::vector<S> patches;
  for (size_t pixel : patch_pixels(s)) patches.push_back(images[pixel]);
  return patches;
}

template <typename S>
std::vector<S> patchify_gradient(const std::vector<S>& dpatches, const ImageSize& s) {
  std::vector<S> dimages(s.batch * s.channels * s.height * s.width);
  const std::vector<size_t> pixels = patch_pixels(s);
  for (size_t i = 0; i < pixels.size(); ++i) dimages[pixels[i]] += dpatches[i];
  return dimages;
}

}  // namespace permafrost::reference
