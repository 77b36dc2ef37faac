#include "models/blocks/loss.h"

#include "core/base/check.h"
#include "core/graph/ops/cross_entropy.h"

namespace permafrost {

void add_loss(Graph& graph, Value logits, Value labels, Value row_weight, float label_smoothing) {
  const Value scale = loss_scale_input(graph);
  CrossEntropyValues loss;
  {
    auto unit = graph.unit("loss");
    loss = cross_entropy(graph, logits, labels, row_weight, label_smoothing, scale);
  }
  graph.name(loss.row_loss, "row_loss");
  graph.set_loss(graph.name(loss.loss, "loss"));
}

Value loss_scale_input(Graph& graph) {
  return graph.compute() == DType::kF16 ? graph.input("loss_scale", {{1}, DType::kF32}) : Value{};
}

void check_label_smoothing(std::string_view who, float label_smoothing) {
  if (!(label_smoothing >= 0.0f && label_smoothing < 1.0f))
    fail(ErrorKind::kConfig, who, ": label_smoothing must be 0 to below 1; got ", label_smoothing);
}

}  // namespace permafrost
