#include "parallel/plan/gpu_memory.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "parallel/plan/plan.h"

namespace permafrost {

namespace {
constexpr int64_t kTableBytesPerParam = 64;
}

std::vector<MemoryItem> DeviceMemoryPlan::items() const {
  return {{"frozen", frozen}, {"slots", slots},         {"working", working}, {"optimizer", optimizer},
          {"sums", sums},     {"gradients", gradients}, {"norms", norms},     {"tables", tables},
          {"arena", arena},   {"inputs", inputs},       {"state", state},     {"constant", constant}};
}

int64_t DeviceMemoryPlan::total() const {
  int64_t sum = 0;
  for (const MemoryItem& item : items()) sum += item.bytes;
  return sum;
}

int64_t frozen_bytes_of_device(const std::vector<int64_t>& unit_bytes, const std::vector<bool>& sharded,
                               bool with_slots, int parts_of) {
  int64_t bytes = 0, largest = 0;
  for (size_t u = 0; u < unit_bytes.size(); ++u) {
    const int64_t whole = round_up(unit_bytes[u], kFrozenBlock);
    if (!sharded[u] || !with_slots) {
      bytes += whole;
      continue;
    }
    largest = std::max(largest, whole);
    if (parts_of > 0) bytes += round_up(div_up(whole, parts_of), kFrozenBlock);
  }
  return bytes + kGatherSlots * largest;
}

void count_gpu_memory(Plan& plan, bool forward_only) {
  if (plan.world.device != DeviceKind::kCuda) return;
  const MemoryPlan& m = plan.memory;
  DeviceMemoryPlan& device = plan.device_memory;
  device.working = m.working;
  device.arena = m.arena;
  device.state = m.state;
  device.constant = kDeviceConstantBytes;
  for (const Program& program : plan.programs) device.inputs = std::max(device.inputs, program.input_bytes);
  plan.host_memory.inputs = m.inputs;
  if (forward_only) return;
  device.optimizer = m.optimizer;
  device.sums = m.sums;
  device.gradients = m.gradients;
  device.norms = 8 * div_up(plan.trainable_space, kTrainableBlock);
  device.tables =
      kTableBytesPerParam * std::ranges::count_if(plan.params, [](const ParamPlan& p) { return p.trainable; });
  if (plan.world.ranks > 1 && !plan.device_collectives) plan.host_memory.staging = m.sums;
}

void count_gpu_weights(Plan& plan) {
  if (plan.world.device != DeviceKind::kCuda) return;
  const bool between_nodes = plan.gather.kind == GatherKind::kCollective;
  std::vector<int64_t> bytes;
  std::vector<bool> sharded;
  for (const FrozenUnit& unit : plan.frozen_units) {
    bytes.push_back(unit.bytes);
    sharded.push_back(unit.sharded);
  }
  const int parts_of = between_nodes && plan.device_collectives ? plan.world.ranks : 0;
  const int64_t with_slots = frozen_bytes_of_device(bytes, sharded, plan.gather.uses_slots(), parts_of);
  // Counted there with two slots of the largest unit; the plan may need less for one of them.
  int64_t largest = 0;
  for (size_t u = 0; u < bytes.size(); ++u)
    if (sharded[u] && plan.gather.uses_slots()) largest = std::max(largest, round_up(bytes[u], kFrozenBlock));
  plan.device_memory.frozen = with_slots - kGatherSlots * largest;
  plan.device_memory.slots = plan.memory.slots;
  plan.host_memory.node_frozen = plan.memory.node_frozen;
  if (between_nodes && !plan.device_collectives) plan.host_memory.slots = plan.memory.slots;
}

}  // namespace permafrost
