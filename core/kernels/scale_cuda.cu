#include "core/kernels/scale_cuda.h"

#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

constexpr int64_t kDotBlock = 16384;  // elements summed by one block of threads; as on CPU, for the workspace

template <typename T>
struct Scale {
  const T* x;
  const float* factor;
  T* out;
  bool add;
  template <int W>
  __device__ void operator()(int64_t i) const {
    const float f = *factor;
    Floats<W> values = load<W>(x + i);
#pragma unroll
    for (int j = 0; j < W; ++j) values.v[j] *= f;
    store_or_add(values, out + i, add);
  }
};

template <typename A, typename B>
__global__ void dot_kernel(const A* a, const B* b, int64_t n, double* partial) {
  __shared__ double scratch[32];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kDotBlock;
  const int64_t end = begin + kDotBlock < n ? begin + kDotBlock : n;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
    sum += static_cast<double>(to_float(a[i])) * static_cast<double>(to_float(b[i]));
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void dot_total_kernel(const double* partial, int64_t count, float* result, bool add) {
  __shared__ double scratch[32];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *result = static_cast<float>(sum) + (add ? *result : 0.0f);
}

}  // namespace

void scale(const Context& context, Tensor x, Tensor factor, Tensor out, GradMode mode) {
  with_dtype(x.dtype(), [&]<typename T>(T*) {
    for_each(context, x.elements(), aligned(x, out),
             Scale<T>{x.data<T>(), factor.data<float>(), out.data<T>(), mode == GradMode::kAdd});
  });
}

void dot(const Context& context, Tensor a, Tensor b, Tensor result, GradMode mode, double* partial) {
  const int64_t n = a.elements(), blocks = (n + kDotBlock - 1) / kDotBlock;
  with_dtype(a.dtype(), [&]<typename A>(A*) {
    with_dtype(b.dtype(), [&]<typename B>(B*) {
      launch(context, dot_kernel<A, B>, static_cast<unsigned>(blocks), kThreads, 0, a.data<A>(), b.data<B>(), n,
             partial);
    });
  });
  launch(context, dot_total_kernel, 1, kThreads, 0, partial, blocks, result.data<float>(), mode == GradMode::kAdd);
}

}  // namespace permafrost::cuda
