#include "core/graph/needs.h"

#include <algorithm>

namespace permafrost {

std::string_view to_string(FreezeClass freeze_class) {
  switch (freeze_class) {
    case FreezeClass::kPrefix:
      return "prefix";
    case FreezeClass::kPassThrough:
      return "pass-through";
    case FreezeClass::kFirst:
      return "first";
    case FreezeClass::kInner:
      return "inner";
  }
  return "?";
}

namespace {

int earlier(int a, int b) { return a < 0 ? b : b < 0 ? a : std::min(a, b); }

/// Why a value may change although its sample does not; -1 = no such reason.
struct Cause {
  int param = -1;  ///< the first trainable parameter it depends on
  int state = -1;  ///< the first written state it depends on
  void join(const Cause& other) {
    param = earlier(param, other.param);
    state = earlier(state, other.state);
  }
  friend bool operator==(const Cause&, const Cause&) = default;
};

/// Which values have something trainable upstream in the same micro-batch: where gradients flow, which is not through
/// states.
std::vector<bool> trainable_upstream(const Graph& graph, const std::vector<bool>& trainable) {
  std::vector<bool> found(graph.values().size(), false);
  for (const OpInfo& op : graph.ops()) {
    const bool any = std::ranges::any_of(op.inputs, [&](int v) { return found[static_cast<size_t>(v)]; }) ||
                     std::ranges::any_of(op.params, [&](int p) { return trainable[static_cast<size_t>(p)]; });
    for (int value : op.outputs) found[static_cast<size_t>(value)] = any;
  }
  return found;
}

/// Causes of an operation's results, given those of values.
Cause cause_of(const OpInfo& op, const std::vector<Cause>& values, const std::vector<bool>& trainable) {
  Cause cause;
  for (int value : op.inputs) cause.join(values[static_cast<size_t>(value)]);
  for (int param : op.params)
    if (trainable[static_cast<size_t>(param)]) cause.join({param, -1});
  return cause;
}

/// Causes per value, states included. A state carries what it was written from to its readers, also to those before the
/// writer in the order of execution: they see it one micro-batch later. Hence sweeps until nothing changes, at most one
/// more than there are states.
std::vector<Cause> causes(const Graph& graph, const std::vector<bool>& trainable) {
  std::vector<Cause> values(graph.values().size());
  for (const OpInfo& op : graph.ops())
    if (op.state >= 0) values[static_cast<size_t>(op.state)].state = op.state;
  for (bool changed = true; changed;) {
    changed = false;
    for (const OpInfo& op : graph.ops()) {
      const Cause cause = cause_of(op, values, trainable);
      for (int value : op.outputs) values[static_cast<size_t>(value)] = cause;
      if (op.state < 0) continue;
      Cause& state = values[static_cast<size_t>(op.state)];
      const Cause before = state;
      state.join(cause);
      changed |= !(state == before);
    }
  }
  return values;
}

/// Why a unit with this operation is not behind the frontier, in words; empty when it is no reason.
std::string frontier_reason(const Graph& graph, const OpInfo& op, const Cause& cause) {
  if (cause.param >= 0) {
    const ParamInfo& param = graph.params()[static_cast<size_t>(cause.param)];
    if (param.unit == op.unit) return concat("trains ", param.name);
    return concat("depends on trainable ", param.name, " (unit ", graph.units()[static_cast<size_t>(param.unit)].name,
                  ")");
  }
  if (op.state >= 0) return concat("writes state ", graph.values()[static_cast<size_t>(op.state)].name);
  if (cause.state >= 0) return concat("depends on state ", graph.values()[static_cast<size_t>(cause.state)].name);
  return "";
}

FreezeClass classify(const Needs& needs) {
  if (needs.params) return needs.inputs ? FreezeClass::kInner : FreezeClass::kFirst;
  return needs.inputs ? FreezeClass::kPassThrough : FreezeClass::kPrefix;
}

}  // namespace

NeedAnalysis analyse_needs(const Graph& graph, const std::vector<bool>& trainable) {
  PERMAFROST_CHECK(trainable.size() == graph.params().size(), "analyse_needs: one flag per parameter expected (",
                   graph.params().size(), "); got ", trainable.size());
  const std::vector<bool> upstream = trainable_upstream(graph, trainable);
  const std::vector<Cause> cause = causes(graph, trainable);

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
    const bool reaches = std::ranges::any_of(op.outputs, [&](int v) { return reaches_loss[static_cast<size_t>(v)]; });
    if (reaches) {
      for (size_t i = 0; i < op.inputs.size(); ++i) {
        const auto value = static_cast<size_t>(op.inputs[i]);
        if (!upstream[value]) continue;
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
    const std::string reason = frontier_reason(graph, op, cause_of(op, cause, trainable));
    if (!reason.empty() && result.behind_frontier[unit]) {
      result.behind_frontier[unit] = false;
      result.frontier_reason[unit] = reason;
    }
  }
  return result;
}

}  // namespace permafrost
