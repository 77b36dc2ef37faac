#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost::cuda {

/// As activation_forward and activation_backward (activation.h), arguments checked.
void activation_forward(const Context& context, Activation activation, Tensor x, Tensor y);
void activation_backward(const Context& context, Activation activation, Tensor kept, Tensor dy, Tensor dx,
                         GradMode mode);

}  // namespace permafrost::cuda
