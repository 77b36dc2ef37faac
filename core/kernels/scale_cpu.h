#pragma once
#include "core/kernels/scale.h"

/// Arithmetic of scale.h on CPU; arguments are checked already.
namespace permafrost::cpu {

/// out = or += factor * x.
void scale(const Context& context, Tensor x, float factor, Tensor out, GradMode mode);
/// result (1) f32 = or += sum a * b; `partial` holds one f64 per block.
void dot(const Context& context, Tensor a, Tensor b, Tensor result, GradMode mode, double* partial);
int64_t dot_blocks(int64_t elements);

}  // namespace permafrost::cpu
