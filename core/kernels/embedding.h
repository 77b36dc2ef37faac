#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Table lookup: out[r] = table[ids[r]].
/// ids: (R) i32 in [0, V);  table: (V, C) f32, bf16 or f16;  out: (R, C) f32 or bf16.
/// Errors: ShapeMismatch; InvalidArgument naming the first id out of range, its row and what was allowed (on CUDA when the
/// stream is synchronised, Stream::synchronize; such a row is 0 then, or adds nothing).
void embedding_forward(const Context& context, Tensor ids, Tensor table, Tensor out);

/// dtable[ids[r]] += dout[r], in row order (deterministic). dtable: (V, C) f32, overwritten (all rows) or added to.
void embedding_backward(const Context& context, Tensor ids, Tensor dout, Tensor dtable, GradMode mode);

}  // namespace permafrost
