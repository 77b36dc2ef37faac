#pragma once
#include "core/kernels/patchify.h"

/// Arithmetic of patchify.h on CUDA; arguments are checked already.
namespace permafrost::cuda {

void patchify_forward(const Context& context, Tensor images, int64_t patch, Tensor patches);
void patchify_backward(const Context& context, Tensor dpatches, int64_t patch, Tensor dimages, GradMode mode);

}  // namespace permafrost::cuda
