// Attention of cuDNN, computed by the project's own kernels: what is tested with it is what stands around cuDNN. It
// takes causal masks and lengths of 1 and more, as cuDNN does, writes all over its workspace, and leaves garbage where
// cuDNN promises nothing.
#include "core/device/cudnn.h"

#include <atomic>
#include <cstring>

#include "core/kernels/attention_view_cuda.h"
#include "core/kernels/cudnn/attention.h"

namespace permafrost::cuda {

bool cudnn_built() { return true; }

const CudnnFound& find_cudnn() {
  static const CudnnFound found{"emulated", "emulated", ""};
  return found;
}

namespace cudnn {

namespace {

AttentionCall call_of(const AttentionKey& key, const AttentionMemory& memory) {
  AttentionCall call{};
  call.dtype = key.dtype, call.bf16 = key.dtype == DType::kBF16;
  call.batch = key.batch, call.queries = key.queries, call.keys = key.keys;
  call.heads = key.heads, call.head_size = key.head_size;
  call.stride_q = key.stride_q, call.stride_k = key.stride_k, call.stride_v = key.stride_v;
  call.q = memory.q, call.k = memory.k, call.v = memory.v, call.out = memory.out, call.lse = memory.lse;
  call.dout = memory.dout, call.dq = memory.dq, call.dk = memory.dk, call.dv = memory.dv;
  call.scale = key.scale, call.causal = key.causal;
  call.lengths = key.lengths ? memory.key_lengths : nullptr;
  return call;
}

template <typename T>
void row_sums(const AttentionCall& call, float* delta) {
  const auto *out = static_cast<const T*>(call.out), *dout = static_cast<const T*>(call.dout);
  for (int64_t row = 0; row < call.batch * call.queries * call.heads; ++row) {
    const int64_t h = row % call.heads, t = row / call.heads % call.queries, b = row / call.heads / call.queries;
    float sum = 0;
    for (int64_t i = row * call.head_size; i < (row + 1) * call.head_size; ++i)
      sum += static_cast<float>(out[i]) * static_cast<float>(dout[i]);
    delta[(b * call.heads + h) * call.queries + t] = sum;
  }
}

/// What was asked for by any other way than cuDNN's.
void require(bool good, const char* what) {
  if (!good) fail(ErrorKind::kInternal, "emulated cuDNN: ", what);
}

void check_call(const AttentionKey& key, const AttentionMemory& memory, void* workspace) {
  for (const void* p :
       {memory.q, memory.k, memory.v, static_cast<const void*>(memory.out), memory.dout,
        static_cast<const void*>(memory.dq), static_cast<const void*>(memory.dk), static_cast<const void*>(memory.dv)})
    require(reinterpret_cast<uintptr_t>(p) % 16 == 0, "expected addresses that are multiples of 16");
  require(memory.lse && workspace && reinterpret_cast<uintptr_t>(workspace) % 256 == 0, "expected lse and a workspace");
  require(!key.backward || (memory.dq && memory.dk && memory.dv && memory.delta), "expected all gradients");
}

void check_lengths(const AttentionKey& key, const AttentionMemory& memory) {
  const cuda_emulation::DeviceAccess access;
  for (int64_t b = 0; key.lengths && b < key.batch; ++b) {
    require(memory.query_lengths[b] == key.queries, "expected all queries");
    require(memory.key_lengths[b] >= 1 && memory.key_lengths[b] <= key.keys, "expected lengths of 1 to S");
  }
}

/// Of the first that asks, for as long as it is there: so that one rank is refused what another is given.
bool has_five_heads(Queue& queue) {
  static std::atomic<Queue*> owner = nullptr;
  Queue* nobody = nullptr;
  if (owner.compare_exchange_strong(nobody, &queue)) {
    queue.attention = &queue;
    queue.destroy_attention = [](void*) { owner = nullptr; };
  }
  return owner == &queue;
}

}  // namespace

const std::string& missing_for(const Context&) { return find_cudnn().missing; }

const std::string& refusal_of(const Context& context, const AttentionKey& key) {
  static const std::string none, always = "the emulation refuses 7 heads",
                                 others = "the emulation has 5 heads for one stream alone";
  Queue& queue = queue_of(context);
  if (key.heads != 7 && (key.heads != 5 || has_five_heads(queue))) return none;
  const std::string& refusal = key.heads == 7 ? always : others;
  if (queue.note) queue.note("attention runs without cuDNN: " + refusal);
  return refusal;
}

void run_attention(const Context& context, const AttentionKey& key, const AttentionMemory& memory, void* workspace) {
  check_call(key, memory, workspace);
  const AttentionCall call = call_of(key, memory);
  cuda_emulation::submit(queue_of(context).stream, [=] {
    check_lengths(key, memory);
    const cuda_emulation::DeviceAccess access;
    std::memset(workspace, 0xff, static_cast<size_t>(most_workspace_bytes(key)));
    if (!key.backward) return;
    key.dtype == DType::kBF16 ? row_sums<bfloat16>(call, memory.delta) : row_sums<float16>(call, memory.delta);
  });
  if (!key.backward) return attention_forward_tiles(context, call);
  attention_backward_tiles(context, call, memory.delta);
}

std::string engine_of(const Context&, const AttentionKey&) { return "emulated"; }

}  // namespace cudnn
}  // namespace permafrost::cuda
