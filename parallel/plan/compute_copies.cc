#include "parallel/plan/compute_copies.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/base/narrow.h"
#include "parallel/plan/plan.h"

namespace permafrost {

namespace {

/// The dtype in which a step reads its operand `param`, when it is one that can have a copy.
std::optional<DType> wanted(const Plan& plan, size_t bucket, const PlanStep& step, size_t param) {
  if (step.kind != StepKind::kForward || step.params[param].region != Region::kFrozen) return std::nullopt;
  const Op& op = *plan.graphs[bucket].ops()[static_cast<size_t>(step.op)].op;
  const DType output = step.outputs[0].spec.dtype;
  if (!has(op.wants_compute_dtype(), param) || output == step.params[param].spec.dtype) return std::nullopt;
  return output;
}

std::pair<int64_t, DType> place_of_copy(const ComputeCopies::Copy& copy) { return {copy.from.offset, copy.dtype}; }

}  // namespace

ComputeCopies::ComputeCopies(const Plan& plan) {
  if (plan.world.device != DeviceKind::kCuda) return;
  for (size_t bucket = 0; bucket < plan.programs.size(); ++bucket)
    for (const PlanStep& step : plan.programs[bucket].steps)
      for (size_t param = 0; param < step.params.size(); ++param)
        if (const std::optional<DType> dtype = wanted(plan, bucket, step, param))
          copies_.push_back({step.params[param], *dtype});
  std::ranges::sort(copies_, {}, place_of_copy);
  const auto repeated = std::ranges::unique(copies_, {}, place_of_copy);
  copies_.erase(repeated.begin(), repeated.end());
  for (Copy& copy : copies_) {
    copy.offset = bytes_;
    bytes_ += round_up(copy.from.spec.shape.elements() * size_of(copy.dtype), kAlignment);
  }
}

const ComputeCopies::Copy* ComputeCopies::find(const Plan& plan, size_t bucket, const PlanStep& step,
                                               size_t param) const {
  if (copies_.empty()) return nullptr;
  const std::optional<DType> dtype = wanted(plan, bucket, step, param);
  if (!dtype) return nullptr;
  const auto found = std::ranges::lower_bound(copies_, std::pair(step.params[param].offset, *dtype), {}, place_of_copy);
  return &*found;
}

}  // namespace permafrost
