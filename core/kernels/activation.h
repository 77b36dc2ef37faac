#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// y = f(x), elementwise; computed in f32. In place (y == x) is allowed.
///   kGelu: x/2 (1 + erf(x/sqrt 2));  kQuickGelu: x sigmoid(1.702 x);  kRelu: max(x, 0);
///   kSquaredRelu: max(x, 0)^2;  kTanh: tanh(x);  kNone: copy.
/// x, y: same shape (any) and dtype, f32 or bf16. NaN gives NaN.
/// Errors: ShapeMismatch; NotBuilt on a device without this kernel.
/// For epilogues of other CPU kernels: activation_cpu.h has the same arithmetic on plain memory.
void activation_forward(const Context& context, Activation activation, Tensor x, Tensor y);

/// dx = dy f'(x), overwritten or added. dx == dy is allowed with kOverwrite. f' of kRelu at 0 is 0.
/// kept: what forward kept: the *output* y for kRelu and kTanh (see activation_keeps_output), else the input x.
/// kept, dy, dx: same shape and dtype. Errors: as forward.
void activation_backward(const Context& context, Activation activation, Tensor kept, Tensor dy, Tensor dx,
                         GradMode mode);

/// True when backward wants the output (relu, tanh), false when it wants the input.
bool activation_keeps_output(Activation activation);

}  // namespace permafrost
