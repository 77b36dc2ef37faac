#pragma once
#include "core/graph/graph.h"

namespace permafrost {

struct CrossEntropyValues {
  Value row_loss;  ///< (R) f32, unweighted
  Value loss;      ///< (1) f64, sum of row_weight * row_loss: the value for Graph::set_loss
};

/// Label-smoothed cross-entropy. logits: (..., V) with R rows, f32 or bf16; labels: (R elements) i32, -100 ignored;
/// row_weight: (R elements) f32. Backward starts here: the gradient of `loss` is 1 and that of row_loss is not taken.
CrossEntropyValues cross_entropy(Graph& graph, Value logits, Value labels, Value row_weight, float smoothing);

}  // namespace permafrost
