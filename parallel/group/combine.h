#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/tensor/dtype.h"
#include "parallel/group/group.h"

namespace permafrost {

/// target[i] = sources[0][i] op sources[1][i] op ..., in this order, for i in [0, elements).
/// target may be one of the sources. dtype: u8, i32, i64, f32, f64. Integer sums wrap; a NaN wins kMax and kMin.
void combine(ReduceOp op, DType dtype, std::span<const std::byte* const> sources, std::byte* target, int64_t elements);

}  // namespace permafrost
