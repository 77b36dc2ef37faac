#pragma once
#include <cstdint>

#include "core/device/context.h"
#include "core/tensor/dtype.h"

namespace permafrost::cuda {

enum class RankReduction : uint8_t { kSum, kMax, kMin };

/// A piece of each rank: this rank's own, and those of the others beside each other in the order of ranks, each
/// `stride_bytes` behind the one before.
struct RankPieces {
  const void* own = nullptr;
  const void* others = nullptr;
  int64_t stride_bytes = 0;
  int rank = 0;
  int ranks = 1;
};

/// out[i] = piece of rank 0 [i] op piece of rank 1 [i] op ..., in this order, for f32 and f64: the bits of
/// parallel/group/combine.h. A NaN of any rank gives NaN. `out` may be `own`. Errors: kInternal for other dtypes.
void combine_ranks(const Context& context, RankReduction op, DType dtype, const RankPieces& pieces, void* out,
                   int64_t elements);

}  // namespace permafrost::cuda
