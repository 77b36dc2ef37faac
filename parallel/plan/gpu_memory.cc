#include "parallel/plan/gpu_memory.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "parallel/plan/compute_copies.h"
#include "parallel/plan/plan.h"

namespace permafrost {

namespace {

/// GradientRange, OrderFreeScale and AdamwFactors of each trainable parameter, and FlatPiece of its pieces twice: for
/// the sums and for the optimizer (core/kernels/flat_pieces.h).
int64_t table_bytes(const Plan& plan) {
  constexpr int64_t kOfAParam = 4 + 8 + 36, kOfAPiece = 2 * 40, kPiece = 4096;
  int64_t bytes = 0;
  for (const ParamPlan& param : plan.params)
    if (param.trainable) bytes += kOfAParam + kOfAPiece * div_up(param.shape.elements(), kPiece);
  return bytes;
}

}  // namespace

std::vector<MemoryItem> DeviceMemoryPlan::items() const {
  return {{"frozen", frozen},       {"slots", slots}, {"working", working},  {"optimizer", optimizer}, {"sums", sums},
          {"gradients", gradients}, {"norms", norms}, {"tables", tables},    {"copies", copies},       {"arena", arena},
          {"inputs", inputs},       {"state", state}, {"constant", constant}};
}

int64_t DeviceMemoryPlan::total() const {
  int64_t sum = 0;
  for (const MemoryItem& item : items()) sum += item.bytes;
  return sum;
}

namespace {

/// Frozen weights of a device: what stays there, and the largest unit that comes into a slot.
struct FrozenOnDevice {
  int64_t lasting = 0, largest_in_slot = 0;
};

FrozenOnDevice frozen_on_device(const std::vector<int64_t>& unit_bytes, const std::vector<bool>& sharded,
                                bool with_slots, int parts_of) {
  FrozenOnDevice frozen;
  for (size_t u = 0; u < unit_bytes.size(); ++u) {
    const int64_t whole = round_up(unit_bytes[u], kFrozenBlock);
    if (!sharded[u] || !with_slots) {
      frozen.lasting += whole;
      continue;
    }
    frozen.largest_in_slot = std::max(frozen.largest_in_slot, whole);
    if (parts_of > 0) frozen.lasting += round_up(div_up(whole, parts_of), kFrozenBlock);
  }
  return frozen;
}

}  // namespace

int64_t frozen_bytes_of_device(const std::vector<int64_t>& unit_bytes, const std::vector<bool>& sharded,
                               bool with_slots, int parts_of) {
  const FrozenOnDevice frozen = frozen_on_device(unit_bytes, sharded, with_slots, parts_of);
  return frozen.lasting + kGatherSlots * frozen.largest_in_slot;
}

void count_gpu_memory(Plan& plan, bool forward_only) {
  if (plan.world.device != DeviceKind::kCuda) return;
  const MemoryPlan& m = plan.memory;
  DeviceMemoryPlan& device = plan.device_memory;
  device.working = m.working;
  device.arena = m.arena;
  device.state = m.state;
  device.copies = ComputeCopies(plan).bytes();  // at most: before units that come into slots are chosen
  device.constant = kDeviceConstantBytes;
  for (const Program& program : plan.programs) device.inputs = std::max(device.inputs, 2 * program.input_bytes);
  plan.host_memory.working = m.working;
  plan.host_memory.inputs = m.inputs;
  if (forward_only) return;
  device.optimizer = m.optimizer;
  device.sums = m.sums;
  device.gradients = m.gradients;
  device.norms = 8 * div_up(plan.trainable_space, kTrainableBlock);
  device.tables = table_bytes(plan);
  if (plan.world.ranks > 1 && !plan.device_collectives) plan.host_memory.staging = std::max(m.sums, m.working);
}

void count_gpu_weights(Plan& plan) {
  if (plan.world.device != DeviceKind::kCuda) return;
  const bool between_devices = plan.gather.kind == GatherKind::kCollective;
  std::vector<int64_t> bytes;
  std::vector<bool> sharded;
  for (const FrozenUnit& unit : plan.frozen_units) {
    bytes.push_back(unit.bytes);
    sharded.push_back(unit.sharded);
  }
  const int parts_of = between_devices ? plan.world.ranks : 0;
  plan.device_memory.frozen = frozen_on_device(bytes, sharded, plan.gather.uses_slots(), parts_of).lasting;
  plan.device_memory.slots = plan.memory.slots;
  plan.device_memory.copies = ComputeCopies(plan).bytes();
  plan.host_memory.node_frozen = plan.memory.node_frozen;
  if (between_devices && !plan.device_collectives)
    plan.host_memory.staging += *std::ranges::max_element(plan.slot_bytes);
}

}  // namespace permafrost
