#pragma once
#include "core/graph/op.h"

namespace permafrost {

/// Copies its input into the state that the graph attached to the operation; the executor passes the state as the only
/// output. No gradient.
class WriteStateOp final : public Op {
 public:
  std::string_view kind() const override { return "write_state"; }
  std::string constants() const override { return {}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec>, std::span<const Shape>) const override { return {}; }
  BackwardUse backward_use(const Needs&) const override { return {}; }
  void forward(const Context& context, const ForwardArgs& args) const override;
  void backward(const Context&, const BackwardArgs&) const override {}
};

}  // namespace permafrost
