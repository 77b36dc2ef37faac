#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Label of a token that is not to be predicted.
inline constexpr int32_t kIgnoredLabel = -100;

/// Cross-entropy with label smoothing s: loss_r = (1 - s) * -log p[label] + s * mean_v(-log p[v]); log-sum-exp in f32,
/// taken relative to the row's maximum, so that large logits do not overflow.
/// logits: (R, V) f32 or bf16;  labels: (R) i32 in [0, V), or -100 = ignored (loss 0, gradient 0; the row is not read)
/// row_loss: (R) f32, unweighted;  lse: (R) f32, kept for backward, 0 where ignored (undefined = not kept).
/// A NaN in a row makes its loss NaN.
/// Source: Szegedy et al. 2016, section 7; PyTorch's cross_entropy(label_smoothing=s) agrees.
/// Errors: ShapeMismatch; InvalidArgument naming the first label out of range (on CUDA from Stream::synchronize, where
/// such a row counts as ignored until then), or when s is not in [0, 1).
void cross_entropy_forward(const Context& context, Tensor logits, Tensor labels, float smoothing, Tensor row_loss,
                           Tensor lse);

/// dlogits_r = row_weight_r * (softmax - (1 - s) onehot - s / V); row_weight: (R) f32 (dL/d row_loss). Rows whose label
/// is ignored get 0 whatever their weight. The relative error of the softmax is that of lse: 2^-24 |lse|.
/// dlogits: (R, V) f32 or bf16, overwritten; dlogits == logits is allowed when the dtypes agree.
void cross_entropy_backward(const Context& context, Tensor logits, Tensor labels, Tensor lse, Tensor row_weight,
                            float smoothing, Tensor dlogits);

/// loss = sum_r row_weight_r * row_loss_r, in f64 in row order, with the same bits on CPU and CUDA. row_loss,
/// row_weight: (R) f32;  loss: (1) f64. With weights that are 0 outside one sample it is that sample's sum.
void weighted_sum(const Context& context, Tensor row_loss, Tensor row_weight, Tensor loss);

}  // namespace permafrost
