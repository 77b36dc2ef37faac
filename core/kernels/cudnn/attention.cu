#include "core/kernels/cudnn/attention.h"

#include <map>
#include <memory>

#include "core/device/cuda_launch.h"
#include "core/device/cudnn.h"
#include "core/kernels/cudnn/attention_graphs.h"

namespace permafrost::cuda::cudnn {

namespace {

struct Entry {
  Plan plan;
  std::string refusal;
};

/// What a queue keeps of cuDNN.
struct Kept {
  cudnnHandle_t handle = nullptr;
  std::string missing;  ///< why there is no handle
  std::map<AttentionKey, Entry> entries;
  ~Kept() {
    entries.clear();
    if (handle) cudnnDestroy(handle);
  }
};

/// The only devices on which it was tested. The graphs of others differ (backward of compute capability 10).
constexpr int kMajor = 9;

void open(Kept& kept, const Queue& queue) {
  if (!find_cudnn().missing.empty()) {
    kept.missing = find_cudnn().missing;
    return;
  }
  const DeviceInfo info = device_info(queue.device);
  if (info.major != kMajor) {
    kept.missing = concat("cuDNN's attention is used on devices of compute capability ", kMajor, ".x; got ", info.name,
                          ", ", info.major, ".", info.minor);
    return;
  }
  try {
    check(cudnnCreate(&kept.handle), "cudnnCreate", "handle");
    check(cudnnSetStream(kept.handle, queue.stream), "cudnnSetStream", "handle");
  } catch (const Refusal& refusal) {
    if (kept.handle) cudnnDestroy(kept.handle);
    kept.handle = nullptr;
    kept.missing = concat(refusal.what(), " (", find_cudnn().path, ")");
  }
}

Kept& kept_of(const Context& context) {
  Queue& queue = queue_of(context);
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  if (!queue.attention) {
    auto kept = std::make_unique<Kept>();
    open(*kept, queue);
    queue.attention = kept.release();
    queue.destroy_attention = [](void* p) { delete static_cast<Kept*>(p); };
  }
  return *static_cast<Kept*>(queue.attention);
}

Entry make_entry(const Kept& kept, Queue& queue, const AttentionKey& key) {
  Entry entry;
  try {
    entry.plan = plan_attention(key, {.handle = kept.handle}, most_workspace_bytes(key));
  } catch (const Refusal& refusal) {
    entry.refusal = refusal.what();
    if (queue.note) queue.note(concat("attention runs without cuDNN: ", entry.refusal));
  }
  return entry;
}

Entry& entry_of(const Context& context, const AttentionKey& key) {
  Kept& kept = kept_of(context);
  auto known = kept.entries.find(key);
  if (known == kept.entries.end()) known = kept.entries.emplace(key, make_entry(kept, queue_of(context), key)).first;
  return known->second;
}

}  // namespace

const std::string& missing_for(const Context& context) { return kept_of(context).missing; }

const std::string& refusal_of(const Context& context, const AttentionKey& key) {
  const Kept& kept = kept_of(context);
  return kept.missing.empty() ? entry_of(context, key).refusal : kept.missing;
}

std::string engine_of(const Context& context, const AttentionKey& key) { return entry_of(context, key).plan.engine; }

void run_attention(const Context& context, const AttentionKey& key, const AttentionMemory& memory, void* workspace) {
  const auto address = [](const void* p) { return const_cast<void*>(p); };
  std::vector<void*> addresses{address(memory.q), address(memory.k), address(memory.v), memory.out};
  if (key.backward)
    addresses.insert(addresses.end(),
                     {address(memory.dout), memory.lse, memory.dq, memory.dk, memory.dv, memory.delta});
  else
    addresses.push_back(memory.lse);
  if (key.lengths) addresses.insert(addresses.end(), {address(memory.query_lengths), address(memory.key_lengths)});
  Entry& entry = entry_of(context, key);
  try {
    entry.plan.run(kept_of(context).handle, std::move(addresses), workspace);
  } catch (const Refusal& refusal) {
    fail(ErrorKind::kInternal, describe(key), ": ", refusal.what());
  }
}

}  // namespace permafrost::cuda::cudnn
