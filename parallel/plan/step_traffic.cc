#include "parallel/plan/step_traffic.h"

namespace permafrost {

namespace {

int64_t bytes_of(const TensorRef& ref) { return ref.region == Region::kNone ? 0 : ref.spec.bytes(); }

int64_t bytes_of(const std::vector<TensorRef>& refs) {
  int64_t bytes = 0;
  for (const TensorRef& ref : refs) bytes += bytes_of(ref);
  return bytes;
}

/// Written, and read before where it is added to.
int64_t gradient_bytes(const std::vector<TensorRef>& refs, const std::vector<GradMode>& modes) {
  int64_t bytes = 0;
  for (size_t i = 0; i < refs.size(); ++i) bytes += (modes[i] == GradMode::kAdd ? 2 : 1) * bytes_of(refs[i]);
  return bytes;
}

bool same_place(const TensorRef& a, const TensorRef& b) { return a.region == b.region && a.offset == b.offset; }

/// Of a backward pass that hands its gradient on (addition): one copy or sum for each input that has memory of its own.
int64_t passed_bytes(const PlanStep& step) {
  int64_t bytes = 0;
  for (size_t i = 0; i < step.dinputs.size(); ++i) {
    if (step.dinputs[i].region == Region::kNone || same_place(step.dinputs[i], step.doutputs[0])) continue;
    bytes += bytes_of(step.doutputs[0]) + (step.dinput_modes[i] == GradMode::kAdd ? 2 : 1) * bytes_of(step.dinputs[i]);
  }
  return bytes;
}

int64_t bytes_moved(const Plan& plan, const PlanStep& step, const OpInfo* info, const OpSpecs& specs) {
  switch (step.kind) {
    case StepKind::kForward: {
      const int64_t params = info->op->kind() == "embedding" ? bytes_of(step.outputs) : bytes_of(step.params);
      // What an operation that came along makes is written, and not read again.
      return bytes_of(step.before_inputs) + bytes_of(step.inputs) + params + bytes_of(step.outputs) +
             bytes_of(step.saved);
    }
    case StepKind::kBackward:
      if (info->op->passes_gradient(specs) != 0) return passed_bytes(step);
      return bytes_of(step.inputs) + bytes_of(step.params) + bytes_of(step.outputs) + bytes_of(step.saved) +
             bytes_of(step.doutputs) + gradient_bytes(step.dinputs, step.dinput_modes) +
             gradient_bytes(step.dparams, step.dparam_modes);
    case StepKind::kAddGradient:
      return bytes_of(step.doutputs) + 2 * bytes_of(step.dinputs);
    case StepKind::kCopyGradient:
      return bytes_of(step.doutputs) + bytes_of(step.dinputs);
    case StepKind::kSumGradient: {
      const int64_t sum = plan.reduction == Reduction::kOrderFree ? 8 : 4;
      return bytes_of(step.dparams) + 2 * sum * (bytes_of(step.dparams) / 4);
    }
  }
  return 0;
}

BitMask trainable_params(const Plan& plan, const OpInfo& info) {
  BitMask mask = 0;
  for (size_t i = 0; i < info.params.size(); ++i)
    if (plan.params[static_cast<size_t>(info.params[i])].trainable) mask |= bit(i);
  return mask;
}

}  // namespace

double forward_flops(const Graph& graph, const PlanStep& step) {
  double flops = 0;
  for (int op : {step.op, step.before}) {
    if (op < 0) continue;
    const OpInfo& info = graph.ops()[static_cast<size_t>(op)];
    flops += info.op->flops(graph.specs_of(info)).forward;
  }
  return flops;
}

StepWork step_work(const Plan& plan, size_t bucket, const PlanStep& step) {
  const Graph& graph = plan.graphs[bucket];
  const OpInfo* info = step.op < 0 ? nullptr : &graph.ops()[static_cast<size_t>(step.op)];
  const OpSpecs specs = info ? graph.specs_of(*info) : OpSpecs{};
  StepWork work;
  work.bytes = bytes_moved(plan, step, info, specs);
  if (step.kind != StepKind::kForward && step.kind != StepKind::kBackward) return work;
  const OpFlops flops = info->op->flops(specs);
  const BitMask trainable = trainable_params(plan, *info);
  if (step.kind == StepKind::kForward) {
    // What comes along has no parameters (ProgramBuilder::takes_along).
    work.trainable_flops = flops.share(flops.forward, trainable);
    work.frozen_flops = forward_flops(graph, step) - work.trainable_flops;
    return work;
  }
  const Needs& needs = plan.needs[bucket].op_needs[static_cast<size_t>(step.op)];
  work.trainable_flops = flops.share(flops.backward({needs.inputs, 0}), trainable) + flops.backward({0, needs.params});
  work.frozen_flops = flops.backward(needs) - work.trainable_flops;
  return work;
}

}  // namespace permafrost
