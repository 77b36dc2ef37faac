#include "launch/training/device_group.h"

#include <algorithm>

#include "configs/config.pb.h"
#include "core/kernels/product_choices.h"
#include "parallel/group/host_staged_group.h"

namespace permafrost {

DeviceMemory::DeviceMemory(std::string name, int64_t bytes, NodeGroup& node) : bytes_(bytes) {
  shared_.emplace(std::move(name), bytes, &node);
}

DeviceExchange decide_exchange(const config::Parallel& parallel, Runtime& runtime) {
  DeviceExchange exchange;
  if (runtime.device().kind == DeviceKind::kCpu || runtime.size() == 1) return exchange;
  exchange.cublaslt = product_device(runtime.program_context()).library;
  const GpuFacts facts = gpu_facts(runtime.device(), exchange.cublaslt);
  check_same_gpus(runtime.world, facts);
  if (parallel.collectives() == config::Parallel::HOST) {
    exchange.reason = "asked for by parallel.collectives";
    return exchange;
  }
  const std::optional<std::string> obstacle = why_no_nccl(runtime.world, facts);
  if (obstacle && parallel.collectives() == config::Parallel::NCCL)
    fail(ErrorKind::kConfig, "parallel.collectives: NCCL cannot be used: ", *obstacle);
  exchange.nccl = !obstacle;
  exchange.reason = obstacle.value_or("");
  return exchange;
}

namespace {

NcclOptions nccl_options(const config::Parallel& parallel, const DeviceExchange& exchange, std::string name,
                         MovedBytes* moved) {
  NcclOptions options;
  options.timeout = std::chrono::seconds(parallel.timeout_s());
  options.name = std::move(name);
  options.cublaslt = exchange.cublaslt;
  options.moved = moved;
  return options;
}

}  // namespace

DeviceGroup::DeviceGroup(const config::Parallel& parallel, Runtime& runtime, int64_t largest_bytes)
    : runtime_(runtime), world_(runtime.world), exchange_(decide_exchange(parallel, runtime)) {
  const Device device = runtime.device();
  if (device.kind == DeviceKind::kCpu) return;
  if (exchange_.nccl) {
    auto group =
        make_nccl_group(world_, *runtime.stream, nccl_options(parallel, exchange_, "reductions", moved_.get()));
    nccl_ = group.get();
    own_ = std::move(group);
    return;
  }
  if (runtime.size() > 1 && largest_bytes > 0) {
    staging_.emplace("staging of exchanges", largest_bytes, &runtime.node);
    pinned_ = PinnedMemory("staging of exchanges", staging_->data(), staging_->bytes(), device);
  }
  own_ = make_host_staged_group(world_, device,
                                {staging_ ? staging_->data() : nullptr, DType::kU8, Shape{std::ssize(staging())}});
}

const DeviceMemory& DeviceGroup::allocate(std::string name, int64_t bytes) {
  const Device device = runtime_.device();
  if (device.kind == DeviceKind::kCpu) return memories_.emplace_back(std::move(name), bytes, runtime_.node);
  if (!nccl_ || bytes == 0) return memories_.emplace_back(Buffer(std::move(name), bytes, device));
  const DeviceMemory& memory = memories_.emplace_back(nccl_memory(std::move(name), bytes, device));
  nccl_->register_memory(memory.data(), bytes);
  return memory;
}

std::vector<std::string> DeviceGroup::notes() const {
  if (nccl_) return {nccl_->describe()};
  if (exchange_.reason.empty()) return {};
  return {
      concat("device: ranks exchange through the memory of their hosts, slowly, not through NCCL: ", exchange_.reason)};
}

namespace {
bool are_gathered(const Plan& plan) { return plan.gather.kind == GatherKind::kCollective && plan.memory.slots > 0; }
}  // namespace

GatherAllocator gather_allocator(const config::Parallel& parallel, const Plan& plan, Runtime& runtime) {
  if (!are_gathered(plan) || !decide_exchange(parallel, runtime).nccl) return {};
  return nccl_memory;
}

std::unique_ptr<Group> make_gather_group(const config::Parallel& parallel, const Plan& plan, Runtime& runtime,
                                         const StepMemory& memory) {
  if (!are_gathered(plan)) return nullptr;
  if (const DeviceExchange exchange = decide_exchange(parallel, runtime); exchange.nccl) {
    auto group = make_nccl_group(runtime.world, *runtime.stream, nccl_options(parallel, exchange, "gathers", nullptr));
    for (const Tensor& piece : memory.gathered_memory())
      group->register_memory(static_cast<std::byte*>(piece.raw()), piece.bytes());
    return group;
  }
  const bool on_cuda = runtime.device().kind == DeviceKind::kCuda;
  auto group = runtime.world.split(0, runtime.rank(), "frozen weights",
                                   plan.gather.prefetch && !on_cuda ? Waiting::kSleeping : Waiting::kEager);
  if (!on_cuda) return group;
  return make_host_staged_group(std::move(group), runtime.device(), *std::ranges::max_element(plan.slot_bytes));
}

std::vector<std::string> gather_notes(const Group* gathers) {
  if (const auto* nccl = dynamic_cast<const NcclGroup*>(gathers)) return {nccl->describe()};
  return {};
}

}  // namespace permafrost
