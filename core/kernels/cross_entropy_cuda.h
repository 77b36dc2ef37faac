#pragma once
#include "core/kernels/cross_entropy.h"

namespace permafrost::cuda {

/// As the functions of cross_entropy.h, arguments checked; labels are checked here.
void cross_entropy_forward(const Context& context, Tensor logits, Tensor labels, float smoothing, Tensor row_loss,
                           Tensor lse);
void cross_entropy_backward(const Context& context, Tensor logits, Tensor labels, Tensor lse, Tensor row_weight,
                            float smoothing, Tensor dlogits);
void weighted_sum(const Context& context, Tensor row_loss, Tensor row_weight, Tensor loss);

}  // namespace permafrost::cuda
