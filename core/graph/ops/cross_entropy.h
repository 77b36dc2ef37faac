#pragma once
#include "core/graph/graph.h"

namespace permafrost {

struct CrossEntropyValues {
  Value row_loss;  ///< (R) f32, unweighted
  Value loss;      ///< (1) f64, sum of row_weight * row_loss: the value for Graph::set_loss
};

/// Label-smoothed cross-entropy. logits: (..., V) with R rows, f32, bf16 or f16; labels: (R elements) i32, -100
/// ignored; row_weight: (R elements) f32. Backward starts here: the gradient of row_loss is not taken, and that of
/// `loss` is 1, or loss_scale, (1) f32, where one is given. Neither output depends on it (docs/notes/fp16.md).
CrossEntropyValues cross_entropy(Graph& graph, Value logits, Value labels, Value row_weight, float smoothing,
                                 Value loss_scale = {});

}  // namespace permafrost
