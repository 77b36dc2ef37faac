#pragma once
#include <cstdint>

#include "core/device/context.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Keys or values of texts that grow: a cache (R, S, C) whose rows are texts and whose tokens are written as they come.

/// cache[r, positions[b] + j] = x[b, j] for every j and every row r = b * copies .. b * copies + copies - 1, where
/// copies = R / B; all else in the cache stays.
/// x: (B, t, C), cache: (R, S, C), both f32 or both bf16; positions: (B) i32 in 0..S - t.
/// Errors: ShapeMismatch, also when R is no multiple of B; InvalidArgument naming the first position out of range.
void write_tokens(const Context& context, Tensor x, Tensor positions, Tensor cache);

/// cache[r, :lengths[r]] = what was cache[rows[r], :lengths[r]], for all rows at once; all else stays. Rows that stay
/// where they are cost nothing.
/// cache: (R, S, C) f32 or bf16; rows: (R) i32 in 0..R-1; lengths: (R) i32 in 0..S. Workspace:
/// select_rows_workspace_bytes of the cache. Errors: ShapeMismatch; InvalidArgument naming the first bad row.
void select_rows(const Context& context, Tensor rows, Tensor lengths, Tensor cache, Tensor workspace);
int64_t select_rows_workspace_bytes(const TensorSpec& cache);

}  // namespace permafrost
