#pragma once
#include "core/kernels/layer_norm.h"

namespace permafrost::cuda {

/// As layer_norm_forward and layer_norm_backward (layer_norm.h), arguments checked.
void layer_norm_forward(const Context& context, const LayerNormForward& args);
void layer_norm_backward(const Context& context, const LayerNormBackward& args, Tensor workspace);

}  // namespace permafrost::cuda
