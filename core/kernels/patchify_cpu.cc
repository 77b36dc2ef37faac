#include "core/kernels/patchify_cpu.h"

#include "core/kernels/elementwise.h"

namespace permafrost::cpu {

namespace {

/// body(pixel, column): offsets of every run of `patch` pixels in images and patches; a block is one row of patches.
template <typename Body>
void for_patch_rows(const Context& context, const Shape& images, int64_t patch, Body body) {
  const int64_t channels = images[1], height = images[2], width = images[3];
  const int64_t down = height / patch, across = width / patch, row_size = channels * patch * patch;
  context.pool->run(images[0] * down, [&](int64_t block, int) {
    const int64_t sample = block / down, top = block % down * patch;
    for (int64_t channel = 0; channel < channels; ++channel)
      for (int64_t y = 0; y < patch; ++y)
        for (int64_t x = 0; x < across; ++x)
          body(((sample * channels + channel) * height + top + y) * width + x * patch,
               (block * across + x) * row_size + (channel * patch + y) * patch);
  });
}

}  // namespace

void patchify_forward(const Context& context, Tensor images, int64_t patch, Tensor patches) {
  const ElementLoops& loops = element_loops();
  for_patch_rows(context, images.shape(), patch, [&](int64_t pixel, int64_t column) {
    loops.convert(images.dtype(), at(images, pixel), patches.dtype(), at(patches, column), patch);
  });
}

void patchify_backward(const Context& context, Tensor dpatches, int64_t patch, Tensor dimages, GradMode mode) {
  const ElementLoops& loops = element_loops();
  const auto move = mode == GradMode::kAdd ? loops.accumulate : loops.convert;
  for_patch_rows(context, dimages.shape(), patch, [&](int64_t pixel, int64_t column) {
    move(dpatches.dtype(), at(dpatches, column), dimages.dtype(), at(dimages, pixel), patch);
  });
}

}  // namespace permafrost::cpu
