#include "core/kernels/activation_cuda.h"

#include "core/kernels/activation_lanes_cuda.h"
#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

template <Activation A, typename T>
struct Forward {
  const T* x;
  T* y;
  template <int W>
  __device__ void operator()(int64_t i) const {
    Floats<W> values = load<W>(x + i);
#pragma unroll
    for (int j = 0; j < W; ++j) values.v[j] = activation_value<A, T>(values.v[j]);
    store(values, y + i);
  }
};

template <Activation A, typename T>
struct Backward {
  const T *kept, *dy;
  T* dx;
  bool add;
  template <int W>
  __device__ void operator()(int64_t i) const {
    const Floats<W> from = load<W>(kept + i);
    Floats<W> gradient = load<W>(dy + i);
#pragma unroll
    for (int j = 0; j < W; ++j) gradient.v[j] *= activation_slope<A, T>(from.v[j]);
    store_or_add(gradient, dx + i, add);
  }
};

}  // namespace

void activation_forward(const Context& context, Activation activation, Tensor x, Tensor y) {
  with_activation(activation, [&]<Activation A>() {
    with_dtype(x.dtype(), [&]<typename T>(T*) {
      for_each(context, x.elements(), aligned(x, y), Forward<A, T>{x.data<T>(), y.data<T>()});
    });
  });
}

void activation_backward(const Context& context, Activation activation, Tensor kept, Tensor dy, Tensor dx,
                         GradMode mode) {
  with_activation(activation, [&]<Activation A>() {
    with_dtype(kept.dtype(), [&]<typename T>(T*) {
      for_each(context, kept.elements(), aligned(kept, dy, dx),
               Backward<A, T>{kept.data<T>(), dy.data<T>(), dx.data<T>(), mode == GradMode::kAdd});
    });
  });
}

}  // namespace permafrost::cuda
