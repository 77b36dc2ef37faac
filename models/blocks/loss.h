#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// Ends a graph: unit `loss` with the cross-entropy of `logits` (see core/graph/ops/cross_entropy.h), values `row_loss`
/// and `loss`, from which backward starts, with loss_scale_input.
void add_loss(Graph& graph, Value logits, Value labels, Value row_weight, float label_smoothing);

/// Under f16 compute the input `loss_scale` (1) f32, a power of two by which the gradient of the loss is multiplied, so
/// that gradients of activations fit f16 (docs/notes/fp16.md); otherwise none.
Value loss_scale_input(Graph& graph);

/// Throws kConfig unless it is 0 to below 1. who: the model.
void check_label_smoothing(std::string_view who, float label_smoothing);

}  // namespace permafrost
