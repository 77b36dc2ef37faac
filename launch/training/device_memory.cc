#include "launch/training/device_memory.h"

#include <algorithm>
#include <span>

#include "launch/gpu.h"

namespace permafrost {

namespace {

bool all_in_slots(const Plan& plan) {
  return plan.gather.uses_slots() &&
         std::ranges::all_of(plan.frozen_units, [](const FrozenUnit& unit) { return unit.sharded || unit.bytes == 0; });
}

/// The four largest, in words.
std::string largest_items(const DeviceMemoryPlan& memory) {
  std::vector<MemoryItem> items = memory.items();
  std::erase_if(items, [](const MemoryItem& item) { return item.name == "constant"; });
  std::ranges::stable_sort(items, std::ranges::greater(), &MemoryItem::bytes);
  std::string text;
  for (const MemoryItem& item : std::span(items).first(4))
    text += concat(text.empty() ? "" : ", ", item.name, ' ', gib_text(item.bytes));
  return text;
}

std::string ways_out(const Plan& plan) {
  std::string text = "a smaller train.micro_batch shrinks arena and inputs";
  const char* bring = plan.world.nodes > 1 ? "gathers" : "copies";
  if (!all_in_slots(plan))
    text += concat(", parallel.frozen_policy SHARDED keeps frozen weights on the host and ", bring,
                   " them unit by unit into two slots");
  if (plan.compute == DType::kF32) text += ", bf16 compute halves arena and frozen weights";
  text += ", fewer trainable parameters shrink sums and optimizer";
  if (plan.world.ranks > 1) text += ", fewer ranks on each GPU leave more of it to each";
  return text + ", or a GPU with more memory (other processes on it count too)";
}

}  // namespace

int64_t least_device_memory(Runtime& runtime) {
  if (runtime.place.device == DeviceKind::kCpu) return 0;
  int64_t mine = runtime.device_free_bytes / runtime.ranks_on_gpu, least = 0;
  runtime.world
      .all_reduce(flat(std::span(&mine, 1)), flat(std::span(&least, 1)), ReduceOp::kMin, StreamView::caller(),
                  "memory of devices")
      .wait();
  return least;
}

void check_device_memory(const Plan& plan, int64_t available_bytes) {
  const int64_t needed = plan.device_memory.total();
  if (available_bytes == 0 || needed <= available_bytes) return;
  fail(ErrorKind::kConfig, "memory: a rank needs ", gib_text(needed), " of its GPU; got ", gib_text(available_bytes),
       " free, short by ", gib_text(needed - available_bytes), ". Largest: ", largest_items(plan.device_memory),
       "; context and libraries ", gib_text(plan.device_memory.constant),
       ". Ways out: ", ways_out(plan));
}

void check_device_memory_beside(const Plan& plan, const Plan& lender, int64_t available_bytes) {
  const int64_t needed = lender.device_memory.total() + plan.device_memory.beside_lent();
  if (available_bytes == 0 || needed <= available_bytes) return;
  fail(ErrorKind::kConfig, "memory: a rank needs ", gib_text(needed),
       " of its GPU for training and for generating texts beside it; got ", gib_text(available_bytes),
       " free. A smaller evaluation.batch, fewer evaluation.decoding.beams or new tokens shrink it");
}

}  // namespace permafrost
