#include "launch/trace/step_description.h"

#include <set>
#include <tuple>

#include "core/base/check.h"
#include "parallel/plan/step_traffic.h"

namespace permafrost {

namespace {

/// Of the tensors that a step reads or writes, each once.
int64_t bytes_touched(const PlanStep& step) {
  std::set<std::tuple<Region, int64_t, int64_t>> seen;
  int64_t bytes = 0;
  for (const auto* refs : {&step.inputs, &step.params, &step.outputs, &step.saved, &step.doutputs, &step.dinputs,
                           &step.dparams, &step.before_inputs})
    for (const TensorRef& ref : *refs)
      if (ref.region != Region::kNone && seen.emplace(ref.region, ref.offset, ref.spec.bytes()).second)
        bytes += ref.spec.bytes();
  return bytes;
}

std::string first_shapes(const OpSpecs& specs) {
  std::string text;
  if (!specs.inputs.empty()) text = concat(specs.inputs[0]);
  if (!specs.params.empty()) text += concat(text.empty() ? "" : " x ", specs.params[0]);
  if (text.empty() && !specs.outputs.empty()) text = concat(specs.outputs[0]);
  return text;
}

std::string made_by(const Graph& graph, const OpInfo& op) {
  const int value = op.outputs.empty() ? op.state : op.outputs[0];
  return value < 0 ? op.scope : graph.values()[static_cast<size_t>(value)].name;
}

}  // namespace

StepDescription describe_step(const Plan& plan, size_t bucket, size_t step) {
  const PlanStep& planned = plan.programs[bucket].steps[step];
  const Graph& graph = plan.graphs[bucket];
  StepDescription described;
  described.tokens = plan.buckets[bucket];
  described.unit = planned.unit < 0 ? "" : graph.units()[static_cast<size_t>(planned.unit)].name;
  described.bytes = bytes_touched(planned);
  if (planned.kind == StepKind::kSumGradient) {
    const ParamPlan& param = plan.params[static_cast<size_t>(planned.param)];
    described.kind = "sum_gradient";
    described.name = described.value = param.name;
    described.shape = concat(param.shape);
    described.bytes += 8 * param.shape.elements() * 2;
    return described;
  }
  const OpInfo& info = graph.ops()[static_cast<size_t>(planned.op)];
  described.name = info.scope;
  described.value = made_by(graph, info);
  if (planned.kind == StepKind::kAddGradient || planned.kind == StepKind::kCopyGradient) {
    described.kind = planned.kind == StepKind::kAddGradient ? "add_gradient" : "copy_gradient";
    described.shape = concat(planned.doutputs[0].spec);
    return described;
  }
  const OpSpecs specs = graph.specs_of(info);
  const OpFlops flops = info.op->flops(specs);
  const bool forward = planned.kind == StepKind::kForward;
  described.kind = info.op->kind();
  if (planned.before >= 0) {  // one call makes both
    const OpInfo& before = graph.ops()[static_cast<size_t>(planned.before)];
    described.kind = concat(before.op->kind(), " + ", described.kind);
    described.value = concat(made_by(graph, before), " + ", described.value);
  }
  described.direction = forward ? "forward" : "backward";
  described.shape = first_shapes(specs);
  described.flops = forward ? forward_flops(graph, planned)
                            : flops.backward(plan.needs[bucket].op_needs[static_cast<size_t>(planned.op)]);
  return described;
}

std::string title_of(const StepDescription& step) {
  if (step.kind == "sum_gradient") return "sum " + step.value;
  if (step.direction.empty()) return step.kind + " " + step.value;
  return step.direction == "forward" ? step.value : "backward " + step.value;
}

}  // namespace permafrost
