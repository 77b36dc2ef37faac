#pragma once
#include <cstdint>

#include "core/kernels/kernel_types.h"
#include "core/kernels/vector_math.h"
#include "core/tensor/dtype.h"

// The arithmetic behind activation.h. The *_cpu functions do no checks and start no threads: n elements of f32 or bf16;
// an element's result does not depend on its place, so that epilogues of other kernels may call these on any piece.
namespace permafrost {

struct Context;
class Tensor;

/// activation.h's functions at a chosen level.
void activation_forward_at(SimdLevel level, const Context& context, Activation activation, Tensor x, Tensor y);
void activation_backward_at(SimdLevel level, const Context& context, Activation activation, Tensor kept, Tensor dy,
                            Tensor dx, GradMode mode);

/// y = f(x); y == x is allowed.
void activation_forward_cpu(Activation activation, DType dtype, const void* x, void* y, int64_t n,
                            SimdLevel level = simd_level());
/// dx = dy f'(kept), overwritten or added; dx == dy is allowed when overwritten. `kept` as in activation_backward.
void activation_backward_cpu(Activation activation, DType dtype, const void* kept, const void* dy, void* dx, int64_t n,
                             GradMode mode, SimdLevel level = simd_level());

// One version of both, for activation_cpu.cc alone.
void activation_forward_avx512(Activation activation, bool bf16, const void* x, void* y, int64_t n);
void activation_backward_avx512(Activation activation, bool bf16, const void* kept, const void* dy, void* dx, int64_t n,
                                bool add);

}  // namespace permafrost
