#include "core/kernels/combine_ranks_cuda.h"

#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

template <RankReduction kOp, typename T>
__device__ T reduced(T a, T b) {
  if constexpr (kOp == RankReduction::kSum) return a + b;
  if constexpr (kOp == RankReduction::kMax) return a > b || a != a ? a : b;  // a NaN on either side is kept
  return a < b || a != a ? a : b;
}

template <RankReduction kOp, typename T>
__global__ void combine_ranks_kernel(RankPieces pieces, T* out, int64_t n) {
  const auto piece = [&](int rank) {
    if (rank == pieces.rank) return static_cast<const T*>(pieces.own);
    const int64_t place = rank < pieces.rank ? rank : rank - 1;
    return reinterpret_cast<const T*>(static_cast<const unsigned char*>(pieces.others) + place * pieces.stride_bytes);
  };
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += threads) {
    T value = piece(0)[i];
    for (int rank = 1; rank < pieces.ranks; ++rank) value = reduced<kOp, T>(value, piece(rank)[i]);
    out[i] = value;
  }
}

template <typename T>
void combine_typed(const Context& context, RankReduction op, const RankPieces& pieces, T* out, int64_t elements) {
  const int64_t most = static_cast<int64_t>(queue_of(context).processors) * 16;
  const int64_t blocks = (elements + kThreads - 1) / kThreads;
  const auto grid = static_cast<unsigned>(blocks < most ? blocks : most);
  if (op == RankReduction::kSum)
    return launch(context, combine_ranks_kernel<RankReduction::kSum, T>, grid, kThreads, 0, pieces, out, elements);
  if (op == RankReduction::kMax)
    return launch(context, combine_ranks_kernel<RankReduction::kMax, T>, grid, kThreads, 0, pieces, out, elements);
  launch(context, combine_ranks_kernel<RankReduction::kMin, T>, grid, kThreads, 0, pieces, out, elements);
}

}  // namespace

void combine_ranks(const Context& context, RankReduction op, DType dtype, const RankPieces& pieces, void* out,
                   int64_t elements) {
  if (dtype == DType::kF32) return combine_typed(context, op, pieces, static_cast<float*>(out), elements);
  if (dtype == DType::kF64) return combine_typed(context, op, pieces, static_cast<double*>(out), elements);
  fail(ErrorKind::kInternal, "cuda: combine_ranks has no kernel for dtype ", to_string(dtype));
}

}  // namespace permafrost::cuda
