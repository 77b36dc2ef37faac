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

ReadableMemory ReadableMemory::borrowed(const ReadableMemory& lender) {
  ReadableMemory memory;
  memory.memory_ = SharedMemory::of_window(lender.memory_.name(), lender.bytes_, lender.data());
  memory.bytes_ = lender.bytes_;
  return memory;
}

namespace {

/// Throws unless both plans find every parameter and every unit in the same places.
void check_same_places(const Plan& plan, const Plan& lender) {
  PERMAFROST_CHECK(plan.params.size() == lender.params.size() && plan.world.ranks == lender.world.ranks &&
                       plan.world.nodes == lender.world.nodes && plan.frozen_units.size() == lender.frozen_units.size(),
                   "StepMemory: plans that share weights must have the same ", lender.params.size(), " parameters, ",
                   lender.frozen_units.size(), " units and ", lender.world.ranks, " ranks; got ", plan.params.size(),
                   ", ", plan.frozen_units.size(), " and ", plan.world.ranks);
  for (size_t p = 0; p < plan.params.size(); ++p) {
    const ParamPlan &mine = plan.params[p], &theirs = lender.params[p];
    PERMAFROST_CHECK(mine.name == theirs.name && mine.placement.region == theirs.placement.region &&
                         mine.placement.offset == theirs.placement.offset &&
                         mine.placement.stored == theirs.placement.stored,
                     "StepMemory: plans that share weights must place parameter ", p, " alike; got ", mine.name, " ",
                     mine.placement.stored, " at ", mine.placement.offset, " and ", theirs.name, " ",
                     theirs.placement.stored, " at ", theirs.placement.offset);
  }
  for (size_t u = 0; u < plan.frozen_units.size(); ++u) {
    const FrozenUnit &mine = plan.frozen_units[u], &theirs = lender.frozen_units[u];
    PERMAFROST_CHECK(mine.begin == theirs.begin && mine.bytes == theirs.bytes && mine.sharded == theirs.sharded,
                     "StepMemory: plans that share weights must place unit ", plan.units[u].name, " alike");
  }
}

}  // namespace

StepMemory::StepMemory(const Plan& plan, const StepMemory& lender, const Plan& lender_plan, NodeGroup* node)
    : rank(lender.rank),
      layout((check_same_places(plan, lender_plan), plan.frozen_layout(lender.rank))),
      arena("arena", plan.memory.arena),
      inputs("inputs", largest_input(plan)),
      state("state", plan.memory.state),
      slots("slots", plan.memory.slots, plan.gather.kind == GatherKind::kCollective ? node : nullptr),
      working(ReadableMemory::borrowed(lender.working)),
      frozen(SharedMemory::of_window(lender.frozen.name(), lender.frozen.bytes(), lender.frozen.data())) {}

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
