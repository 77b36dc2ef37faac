#pragma once
#include "core/graph/ops/cross_entropy.h"

namespace permafrost {

/// cross_entropy(linear(x, weight, {}, kNone, wide), labels, row_weight, ...) without whole logits: they are
/// computed in f32 for some hundred rows at a time, and the gradient follows at once, while they are there. Same bits
/// as the two operations. x: (..., K) with R rows; weight: (V, K); the rest as cross_entropy. A frozen weight is read
/// by forward alone, which keeps dL/dx for backward (so forward does the product of backward too, though flops() counts
/// it as backward's); a trainable one makes forward keep dL/dlogits (R, V) in the compute dtype.
CrossEntropyValues head_loss(Graph& graph, Value x, Param weight, Value labels, Value row_weight, float smoothing,
                             Value loss_scale = {});

/// Rows whose logits are there at a time, of `rows` in all; of the last time the rest.
int64_t head_loss_rows(int64_t rows);

}  // namespace permafrost
