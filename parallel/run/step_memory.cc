#include "parallel/run/step_memory.h"

#include <algorithm>

#include "core/base/narrow.h"

namespace permafrost {

namespace {
int64_t largest_input(const Plan& plan) {
  int64_t bytes = 0;
  for (const Program& program : plan.programs) bytes = std::max(bytes, program.input_bytes);
  return bytes;
}
}  // namespace

ReadableMemory::ReadableMemory(std::string name, int64_t bytes, NodeGroup* node) : bytes_(bytes) {
  if (!node) {
    memory_ = SharedMemory::alone(std::move(name), bytes);
    return;
  }
  constexpr int64_t kHugePage = int64_t{2} << 20;  // each rank's part begins at one, if it is that large
  const int64_t part = round_up(bytes, bytes >= kHugePage ? kHugePage : 4096);
  memory_ = node->allocate(std::move(name), part * node->size());
  offset_ = part * node->rank();
}

StepMemory::StepMemory(const Plan& plan, int rank, NodeGroup* node)
    : rank(rank),
      layout(plan.frozen_layout(rank)),
      arena("arena", plan.memory.arena),
      inputs("inputs", largest_input(plan)),
      state("state", plan.memory.state),
      slots("slots", plan.memory.slots, plan.gather.kind == GatherKind::kCollective ? node : nullptr),
      working("working copies", plan.memory.working, node),
      frozen(node ? node->allocate("frozen parameters", layout.node_bytes())
                  : SharedMemory::alone("frozen parameters", layout.node_bytes())) {}

std::byte* StepMemory::address(Region region, int64_t offset) const {
  switch (region) {
    case Region::kNone:
      return nullptr;
    case Region::kArena:
      return arena.data() + offset;
    case Region::kInputs:
      return inputs.data() + offset;
    case Region::kState:
      return state.data() + offset;
    case Region::kSlots:
      return slots.data() + offset;
    case Region::kWorking:
      return working.data() + offset;
    case Region::kFrozen:
      break;
  }
  // Units ascend; of those that begin at one place the last has bytes.
  const auto& units = layout.units();
  const auto behind = std::ranges::upper_bound(units, offset, {}, &FrozenUnit::begin);
  const auto unit = static_cast<size_t>(behind - units.begin()) - 1;
  return frozen.data() + layout.whole_at(unit) + (offset - units[unit].begin);
}

Tensor StepMemory::tensor(const TensorRef& ref) const {
  if (ref.region == Region::kNone) return {};
  return {address(ref.region, ref.offset), ref.spec};
}

Tensor StepMemory::param(const ParamPlan& param) const {
  return {address(param.placement.region, param.placement.offset), param.placement.stored};
}

}  // namespace permafrost
