#include "core/kernels/patchify_cuda.h"

#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

struct Geometry {
  int64_t channels, height, width, patch;
  /// Where element i of the patches lies in the images.
  __device__ int64_t pixel(int64_t i) const {
    const int64_t across = width / patch, down = height / patch, size = channels * patch * patch;
    const int64_t row = i / size, column = i - row * size;
    const int64_t channel = column / (patch * patch), y = column / patch % patch, x = column % patch;
    const int64_t left = row % across, top = row / across % down, sample = row / (across * down);
    return ((sample * channels + channel) * height + top * patch + y) * width + left * patch + x;
  }
};

template <typename From, typename To>
struct Cut {
  Geometry geometry;
  const From* images;
  To* patches;
  template <int W>
  __device__ void operator()(int64_t i) const {
    store(load<W>(images + geometry.pixel(i)), patches + i);
  }
};

template <typename From, typename To>
struct Join {
  Geometry geometry;
  const From* patches;
  To* images;
  bool add;
  template <int W>
  __device__ void operator()(int64_t i) const {
    To* target = images + geometry.pixel(i);
    Floats<W> values = load<W>(patches + i);
    store_or_add(values, target, add);
  }
};

Geometry geometry_of(const Tensor& images, int64_t patch) {
  return {images.dim(1), images.dim(2), images.dim(3), patch};
}

}  // namespace

void patchify_forward(const Context& context, Tensor images, int64_t patch, Tensor patches) {
  with_dtype(images.dtype(), [&]<typename From>(From*) {
    with_dtype(patches.dtype(), [&]<typename To>(To*) {
      for_each(context, patches.elements(), aligned(images, patches) && patch % kWide == 0,
               Cut<From, To>{geometry_of(images, patch), images.data<From>(), patches.data<To>()});
    });
  });
}

void patchify_backward(const Context& context, Tensor dpatches, int64_t patch, Tensor dimages, GradMode mode) {
  with_dtype(dpatches.dtype(), [&]<typename From>(From*) {
    with_dtype(dimages.dtype(), [&]<typename To>(To*) {
      for_each(context, dpatches.elements(), aligned(dimages, dpatches) && patch % kWide == 0,
               Join<From, To>{geometry_of(dimages, patch), dpatches.data<From>(), dimages.data<To>(),
                              mode == GradMode::kAdd});
    });
  });
}

}  // namespace permafrost::cuda
