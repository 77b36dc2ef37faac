#pragma once
#include "core/kernels/scale.h"

/// Arithmetic of scale.h on CUDA; arguments are checked already.
namespace permafrost::cuda {

/// out = or += factor * x. factor: (1) f32.
void scale(const Context& context, Tensor x, Tensor factor, Tensor out, GradMode mode);
/// result (1) f32 = or += sum a * b; `partial` holds one f64 per 16,384 elements.
void dot(const Context& context, Tensor a, Tensor b, Tensor result, GradMode mode, double* partial);

}  // namespace permafrost::cuda
