#include "core/kernels/adamw_cuda.h"

#include "core/kernels/adamw_factors.h"
#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

struct NoWorking {};

/// Elements that a thread takes at once: 16 bytes of f32, which most of the streams are.
constexpr int kElements = 4;

template <typename Working>
struct Adamw {
  AdamwFactors f;
  float *master, *first, *second;
  const float* grad;
  Working* working;

  /// The operations of adamw_loops.h in their order: every one rounds alike there and here, so the bits are the same.
  template <int W>
  __device__ void operator()(int64_t i) const {
    const Floats<W> gradient = load<W>(grad + i);
    Floats<W> p = load<W>(master + i), m = load<W>(first + i), v = load<W>(second + i);
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const float g = f.grad_scale * gradient.v[j];
      m.v[j] = f.beta1 * m.v[j] + f.one_minus_beta1 * g;
      v.v[j] = f.beta2 * v.v[j] + f.one_minus_beta2 * g * g;
      const float denominator = sqrtf(v.v[j]) / f.root_correction + f.eps;
      p.v[j] = f.decay * p.v[j] - f.step_size * m.v[j] / denominator;
    }
    store(m, first + i);
    store(v, second + i);
    store(p, master + i);
    if constexpr (!__is_same(Working, NoWorking)) store_working(p, working + i);
  }

  template <int W>
  __device__ static void store_working(const Floats<W>& p, Working* to) {
    if constexpr (W * sizeof(Working) != sizeof(uint2)) {
      store(p, to);
    } else {
      Working stored[W];
#pragma unroll
      for (int j = 0; j < W; ++j) stored[j] = from_float<Working>(p.v[j]);
      uint2 raw;
      memcpy(&raw, stored, sizeof(raw));
      *reinterpret_cast<uint2*>(to) = raw;
    }
  }
};

template <typename Working>
__global__ void adamw_kernel(Adamw<Working> adamw, int64_t n, bool wide) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t groups = wide ? n / kElements : 0;
  for (int64_t group = first; group < groups; group += threads) adamw.template operator()<kElements>(group * kElements);
  for (int64_t i = groups * kElements + first; i < n; i += threads) adamw.template operator()<1>(i);
}

}  // namespace

void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working) {
  const int64_t n = master.elements(), most = static_cast<int64_t>(queue_of(context).processors) * 16;
  const bool wide = aligned(master, m, v, grad, working);
  const int64_t work = wide ? n / kElements + n % kElements : n, blocks = (work + kThreads - 1) / kThreads;
  const auto run = [&]<typename Working>(Working* to) {
    const Adamw<Working> each{adamw_factors(step), master.data<float>(), m.data<float>(),
                              v.data<float>(),     grad.data<float>(),   to};
    launch(context, adamw_kernel<Working>, static_cast<unsigned>(blocks < most ? blocks : most), kThreads, 0, each, n,
           wide);
  };
  if (!working) return run(static_cast<NoWorking*>(nullptr));
  with_dtype(working.dtype(), [&]<typename Working>(Working*) { run(working.data<Working>()); });
}

}  // namespace permafrost::cuda
