#include "parallel/run/step_memory.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/narrow.h"
#include "core/device/cuda.h"

namespace permafrost {

namespace {
int64_t largest_input(const Plan& plan) {
  int64_t bytes = 0;
  for (const Program& program : plan.programs) bytes = std::max(bytes, program.input_bytes);
  return bytes;
}

/// A device gathers into slots of its own.
int64_t host_slots(const Plan& plan, Device device) { return device.kind == DeviceKind::kCuda ? 0 : plan.memory.slots; }
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

PinnedMemory::PinnedMemory(std::string_view name, std::byte* memory, int64_t bytes, Device device) {
  cuda::pin(name, memory, bytes, device.index);
  memory_ = memory;
}

PinnedMemory::~PinnedMemory() { cuda::unpin(memory_); }

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

StepMemory::StepMemory(const Plan& plan, const StepMemory& lender, const Plan& lender_plan, NodeGroup* node,
                       const GatherAllocator& gathered)
    : rank(lender.rank),
      device(lender.device),
      layout((check_same_places(plan, lender_plan), plan.frozen_layout(lender.rank))),
      arena("arena", plan.memory.arena, device),
      state("state", plan.memory.state, device),
      inputs(Buffer::pinned("inputs", largest_input(plan), device)),
      slots("slots", host_slots(plan, device), plan.gather.kind == GatherKind::kCollective ? node : nullptr),
      working(ReadableMemory::borrowed(lender.working)),
      frozen(SharedMemory::of_window(lender.frozen.name(), lender.frozen.bytes(), lender.frozen.data())),
      weights_(lender.weights_) {
  place_on_device(plan, gathered);
}

StepMemory::StepMemory(const Plan& plan, int rank, NodeGroup* node, Device device, const GatherAllocator& gathered)
    : rank(rank),
      device(device),
      layout(plan.frozen_layout(rank)),
      arena("arena", plan.memory.arena, device),
      state("state", plan.memory.state, device),
      inputs(Buffer::pinned("inputs", largest_input(plan), device)),
      slots("slots", host_slots(plan, device), plan.gather.kind == GatherKind::kCollective ? node : nullptr),
      working("working copies", plan.memory.working, node),
      frozen(node ? node->allocate("frozen parameters", layout.node_bytes())
                  : SharedMemory::alone("frozen parameters", layout.node_bytes())) {
  place_on_device(plan, gathered);
}

void StepMemory::place_on_device(const Plan& plan, const GatherAllocator& gathered) {
  if (!on_cuda()) return;
  gathers_ = plan.gather.kind == GatherKind::kCollective && plan.memory.slots > 0;
  const auto gather_memory = [&](const char* name, int64_t bytes) {
    return gathers_ && gathered && bytes > 0 ? gathered(name, bytes, device) : Buffer(name, bytes, device);
  };
  device_inputs_ = Buffer("inputs", inputs.bytes(), device);
  device_slots_ = gather_memory("slots", plan.memory.slots);
  if (weights_) return;  // the lender's, which pinned what is copied from
  if (plan.gather.kind == GatherKind::kCopy && plan.memory.slots > 0 && frozen.bytes() > 0)
    pinned_ = PinnedMemory(frozen.name(), frozen.data(), frozen.bytes(), device);
  weights_ = std::make_shared<DeviceWeights>();
  int64_t whole = 0, parts = 0;
  for (size_t u = 0; u < layout.units().size(); ++u) {
    DevicePlace place = place_of(plan, u);
    int64_t& end = place.part ? parts : whole;
    place.at = end;
    end += round_up(place.room, kFrozenBlock);
    weights_->places.push_back(place);
  }
  weights_->frozen = Buffer("frozen parameters", whole, device);
  weights_->parts = gather_memory("parts of frozen parameters", parts);
  weights_->working = Buffer("working copies", plan.memory.working, device);
}

void StepMemory::upload_frozen(const Context& context) const {
  if (!on_cuda()) return;
  for (size_t u = 0; u < layout.units().size(); ++u)
    if (const DevicePlace& place = weights_->places[u]; place.bytes > 0)
      cuda::copy(*context.stream.queue(), weights_->at(place), frozen.data() + place.host_at, place.bytes);
}

/// What a device holds of a unit: all of one that programs read there; of one that they read in a slot nothing, or this
/// rank's part where devices gather it from each other.
StepMemory::DevicePlace StepMemory::place_of(const Plan& plan, size_t unit) const {
  const int64_t bytes = layout.units()[unit].bytes;
  const bool in_slots = layout.units()[unit].sharded && plan.gather.uses_slots();
  if (!in_slots) return {.host_at = layout.whole_at(unit), .bytes = bytes, .room = bytes};
  if (plan.gather.kind != GatherKind::kCollective) return {};
  const ShardSpec parts = layout.parts(unit);
  return {.host_at = layout.whole(unit) ? layout.whole_at(unit) + parts.begin(rank) : layout.own_part_at(unit),
          .bytes = parts.count(rank),
          .room = std::ranges::max(parts.counts()),
          .part = true};
}

std::vector<Tensor> StepMemory::gathered_memory() const {
  std::vector<Tensor> memory;
  if (!gathers_) return memory;
  for (const Buffer* buffer : std::array<const Buffer*, 2>{&weights_->parts, &device_slots_})
    if (buffer->bytes() > 0) memory.emplace_back(buffer->data(), DType::kU8, Shape{buffer->bytes()}, device);
  return memory;
}

Tensor StepMemory::device_part(size_t unit) const {
  const DevicePlace& place = weights_->places[unit];
  return {weights_->at(place), DType::kU8, Shape{place.bytes}, device};
}

std::vector<size_t> StepMemory::units_that_differ(const Context& context) const {
  std::vector<size_t> differ;
  if (!on_cuda()) return differ;
  constexpr int64_t kPiece = int64_t{4} << 20;
  const Buffer piece = Buffer::pinned("frozen parameters read back", kPiece, device);
  for (size_t u = 0; u < layout.units().size(); ++u) {
    const DevicePlace& place = weights_->places[u];
    for (int64_t at = 0; at < place.bytes; at += kPiece) {
      const int64_t count = std::min(kPiece, place.bytes - at);
      cuda::copy(*context.stream.queue(), piece.data(), weights_->at(place) + at, count);
      cuda::synchronize(*context.stream.queue());
      if (std::memcmp(piece.data(), frozen.data() + place.host_at + at, static_cast<size_t>(count)) == 0) continue;
      differ.push_back(u);
      break;
    }
  }
  return differ;
}

void StepMemory::upload_working(const Context& context) const {
  if (on_cuda()) cuda::copy(*context.stream.queue(), weights_->working.data(), working.data(), working.bytes());
}

std::byte* StepMemory::slot(int64_t offset) const { return address(Region::kSlots, offset); }

/// Units ascend; of those that begin at one place the last has bytes.
size_t StepMemory::unit_at(int64_t offset) const {
  const auto& units = layout.units();
  return static_cast<size_t>(std::ranges::upper_bound(units, offset, {}, &FrozenUnit::begin) - units.begin()) - 1;
}

std::byte* StepMemory::address(Region region, int64_t offset) const {
  switch (region) {
    case Region::kNone:
      return nullptr;
    case Region::kArena:
      return arena.data() + offset;
    case Region::kInputs:
      return (on_cuda() ? device_inputs_.data() : inputs.data()) + offset;
    case Region::kState:
      return state.data() + offset;
    case Region::kSlots:
      return (on_cuda() ? device_slots_.data() : slots.data()) + offset;
    case Region::kWorking:
      return (on_cuda() ? weights_->working.data() : working.data()) + offset;
    case Region::kFrozen:
      break;
  }
  const size_t unit = unit_at(offset);
  const int64_t inside = offset - layout.units()[unit].begin;
  if (!on_cuda()) return frozen.data() + layout.whole_at(unit) + inside;
  return weights_->at(weights_->places[unit]) + inside;
}

Tensor StepMemory::tensor(const TensorRef& ref) const {
  if (ref.region == Region::kNone) return {};
  return {address(ref.region, ref.offset), ref.spec, device};
}

Tensor StepMemory::host_param(const ParamPlan& param) const {
  const int64_t offset = param.placement.offset;
  if (param.placement.region == Region::kWorking) return {working.data() + offset, param.placement.stored};
  const size_t unit = unit_at(offset);
  return {frozen.data() + layout.whole_at(unit) + (offset - layout.units()[unit].begin), param.placement.stored};
}

Tensor StepMemory::param(const ParamPlan& param) const {
  return {address(param.placement.region, param.placement.offset), param.placement.stored, device};
}

}  // namespace permafrost
