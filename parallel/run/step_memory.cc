#include "parallel/run/step_memory.h"

#include <algorithm>

namespace permafrost {

namespace {
int64_t largest_input(const Plan& plan) {
  int64_t bytes = 0;
  for (const Program& program : plan.programs) bytes = std::max(bytes, program.input_bytes);
  return bytes;
}
}  // namespace

StepMemory::StepMemory(const Plan& plan, Device device)
    : arena("arena", plan.memory.arena, device),
      inputs("inputs", largest_input(plan), device),
      state("state", plan.memory.state, device),
      frozen("frozen parameters", plan.memory.frozen, device),
      working("working copies", plan.memory.working, device) {}

std::byte* StepMemory::region(Region region) const {
  switch (region) {
    case Region::kNone:
      return nullptr;
    case Region::kArena:
      return arena.data();
    case Region::kInputs:
      return inputs.data();
    case Region::kState:
      return state.data();
    case Region::kFrozen:
      return frozen.data();
    case Region::kWorking:
      return working.data();
  }
  return nullptr;
}

Tensor StepMemory::tensor(const TensorRef& ref) const {
  if (ref.region == Region::kNone) return {};
  return {region(ref.region) + ref.offset, ref.spec};
}

Tensor StepMemory::param(const ParamPlan& param) const {
  return {region(param.placement.region) + param.placement.offset, param.placement.stored};
}

}  // namespace permafrost
