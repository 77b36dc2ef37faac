#pragma once
#include "core/kernels/dropout.h"

/// Arithmetic of dropout.h on CUDA; arguments are checked already, except the epoch. The same bits as on CPU.
namespace permafrost::cuda {

void dropout(const Context& context, Tensor x, Tensor address, uint32_t layer, float p, Tensor out, GradMode mode);

}  // namespace permafrost::cuda
