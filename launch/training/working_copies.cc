#include "launch/training/working_copies.h"

#include <numeric>

namespace permafrost {

std::vector<int64_t> working_bytes_per_rank(const Plan& plan) {
  const ShardSpec shards(plan.trainable_space, plan.world.ranks);
  std::vector<int64_t> bytes;
  for (int rank = 0; rank < plan.world.ranks; ++rank)
    bytes.push_back(plan.working_byte(shards.end(rank)) - plan.working_byte(shards.begin(rank)));
  return bytes;
}

void gather_working_copies(const StepMemory& memory, Group& world, std::span<const int64_t> counts) {
  gather_working_copies(Tensor(memory.working.data(), DType::kU8, Shape{memory.working.bytes()}), Context(), world,
                        counts);
}

void gather_working_copies(const Tensor& all, const Context& context, Group& group, std::span<const int64_t> counts) {
  const auto rank = static_cast<size_t>(group.rank());
  const int64_t begin = std::accumulate(counts.begin(), counts.begin() + group.rank(), int64_t{0});
  const Event gathered =
      group.all_gather(all.rows(begin, begin + counts[rank]), all, counts, context.stream, "working copies");
  if (context.device.kind == DeviceKind::kCpu) gathered.wait();  // on CUDA the stream keeps the order
}

}  // namespace permafrost
