#include "core/kernels/adamw_cuda.h"

#include "core/kernels/adamw_factors.h"
#include "core/kernels/elements_cuda.h"
#include "core/kernels/flat_pieces.h"

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

/// Threads first, first + threads, ... of [0, n).
template <typename Working>
__device__ void update(const Adamw<Working>& adamw, int64_t n, bool wide, int64_t first, int64_t threads) {
  const int64_t groups = wide ? n / kElements : 0;
  for (int64_t group = first; group < groups; group += threads) adamw.template operator()<kElements>(group * kElements);
  for (int64_t i = groups * kElements + first; i < n; i += threads) adamw.template operator()<1>(i);
}

template <typename Working>
__global__ void adamw_kernel(Adamw<Working> adamw, int64_t n, bool wide) {
  update(adamw, n, wide, static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x,
         static_cast<int64_t>(gridDim.x) * blockDim.x);
}

struct Slice {
  const FlatPiece* pieces;
  const AdamwFactors* factors;
  const float* clip;
  const int* apply;
  float *master, *first, *second;
  const float* grad;
  unsigned char* working;
};

template <typename Working>
__device__ void update_piece(const Slice& slice, const FlatPiece& piece) {
  Adamw<Working> adamw{slice.factors[piece.row],  slice.master + piece.begin,
                       slice.first + piece.begin, slice.second + piece.begin,
                       slice.grad + piece.begin,  reinterpret_cast<Working*>(slice.working + piece.working_byte)};
  adamw.f.grad_scale = *slice.clip;
  constexpr uintptr_t kMask = 15;
  const uintptr_t places = reinterpret_cast<uintptr_t>(adamw.master) | reinterpret_cast<uintptr_t>(adamw.first) |
                           reinterpret_cast<uintptr_t>(adamw.second) | reinterpret_cast<uintptr_t>(adamw.grad) |
                           reinterpret_cast<uintptr_t>(adamw.working);
  update(adamw, piece.elements, (places & kMask) == 0, threadIdx.x, blockDim.x);
}

/// A block per piece.
__global__ void pieces_kernel(Slice slice) {
  if (*slice.apply == 0) return;
  const FlatPiece piece = slice.pieces[blockIdx.x];
  switch (static_cast<DType>(piece.working_dtype)) {
    case DType::kF32:
      return update_piece<float>(slice, piece);
    case DType::kBF16:
      return update_piece<bfloat16>(slice, piece);
    case DType::kF16:
      return update_piece<float16>(slice, piece);
    default:
      return;
  }
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

void adamw_pieces(const Context& context, const AdamwPieces& args) {
  const Slice slice{reinterpret_cast<const FlatPiece*>(args.pieces.data<int64_t>()),
                    reinterpret_cast<const AdamwFactors*>(args.factors.data<float>()),
                    args.clip.data<float>(),
                    args.apply.data<int32_t>(),
                    args.master.data<float>(),
                    args.m.data<float>(),
                    args.v.data<float>(),
                    args.grad.data<float>(),
                    args.working.data<uint8_t>()};
  launch(context, pieces_kernel, static_cast<unsigned>(args.pieces.dim(0)), kThreads, 0, slice);
}

}  // namespace permafrost::cuda
