#include "core/graph/needs.h"

#include <algorithm>

namespace permafrost {

std::string_view to_string(FreezeClass freeze_class) {
  switch (freeze_class) {
    case FreezeClass::kPrefix: return "prefix";
    case FreezeClass::kPassThrough: return "pass-through";
    case FreezeClass::kFirst: return "first";
    case FreezeClass::kInner: return "inner";
  }
  return "?";
}

namespace {

/// Per value: the trainable parameter upstream that comes first in the graph, or -1.
std::vector<int> trainable_upstream(const Graph& graph, const std::vector<bool>& trainable) {
  std::vector<int> cause(graph.values().size(), -1);
  const auto earlier = [](int a, int b) { return a < 0 ? b : b < 0 ? a : std::min(a, b); };
  for (const OpInfo& op : graph.ops()) {
    int found = -1;
    for (int value : op.inputs) found = earlier(found, cause[static_cast<size_t>(value)]);
    for (int param : op.params)
      if (trainable[static_cast<size_t>(param)]) found = earlier(found, param);
    for (int value : op.outputs) cause[static_cast<size_t>(value)] = found;
    // A state written from something trainable carries that on to whoever reads it in the next micro-batch; gradients
    // do not flow through states, but what reads them is not cacheable.
    if (op.state >= 0) cause[static_cast<size_t>(op.state)] = found;
  }
  return cause;
}

FreezeClass classify(const Needs& needs) {
  if (needs.params) return needs.inputs ? FreezeClass::kInner : FreezeClass::kFirst;
  return needs.inputs ? FreezeClass::kPassThrough : FreezeClass::kPrefix;
}

}  // namespace

NeedAnalysis analyse_needs(const Graph& graph, const std::vector<bool>& trainable) {
  PERMAFROST_CHECK(trainable.size() == graph.params().size(), "analyse_needs: one flag per parameter expected (",
                   graph.params().size(), "); got ", trainable.size());
  const std::vector<int> cause = trainable_upstream(graph, trainable);

  std::vector<bool> reaches_loss(graph.values().size(), false);
  if (graph.loss() >= 0) reaches_loss[static_cast<size_t>(graph.loss())] = true;
  for (size_t o = graph.ops().size(); o-- > 0;) {
    const OpInfo& op = graph.ops()[o];
    const bool reaches = std::ranges::any_of(op.outputs, [&](int v) { return reaches_loss[static_cast<size_t>(v)]; });
    if (!reaches) continue;
    for (int value : op.inputs) reaches_loss[static_cast<size_t>(value)] = true;
  }

  NeedAnalysis result;
  const size_t units = graph.units().size();
  result.value_needs_gradient.assign(graph.values().size(), false);
  result.unit_class.assign(units, FreezeClass::kPrefix);
  result.behind_frontier.assign(units, true);
  result.frontier_reason.assign(units, "");
  for (const OpInfo& op : graph.ops()) {
    Needs needs;
    int first_cause = -1;
    for (int value : op.outputs) first_cause = cause[static_cast<size_t>(value)];
    const bool reaches = std::ranges::any_of(op.outputs, [&](int v) { return reaches_loss[static_cast<size_t>(v)]; });
    if (reaches) {
      for (size_t i = 0; i < op.inputs.size(); ++i) {
        const auto value = static_cast<size_t>(op.inputs[i]);
        if (cause[value] < 0 || graph.values()[value].role != ValueRole::kComputed) continue;
        needs.inputs |= bit(i);
        result.value_needs_gradient[value] = true;
      }
      for (size_t i = 0; i < op.params.size(); ++i)
        if (trainable[static_cast<size_t>(op.params[i])]) needs.params |= bit(i);
    }
    result.op_needs.push_back(needs);
    result.op_class.push_back(classify(needs));

    const auto unit = static_cast<size_t>(op.unit);
    result.unit_class[unit] = std::max(result.unit_class[unit], result.op_class.back());
    if (first_cause >= 0 && result.behind_frontier[unit]) {
      result.behind_frontier[unit] = false;
      const ParamInfo& param = graph.params()[static_cast<size_t>(first_cause)];
      const std::string& owner = graph.units()[static_cast<size_t>(param.unit)].name;
      result.frontier_reason[unit] = param.unit == op.unit
                                         ? concat("trains ", param.name)
                                         : concat("depends on trainable ", param.name, " (unit ", owner, ")");
    }
  }
  return result;
}

}  // namespace permafrost
