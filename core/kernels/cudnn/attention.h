#pragma once
#include <compare>
#include <cstdint>
#include <string>

#include "core/kernels/attention_cuda.h"
#include "core/tensor/dtype.h"

// Attention of cuDNN: attention.cu in a build with its headers, no_cudnn.cc in one without. For
// attention_library_cuda.cu and tests.
namespace permafrost::cuda::cudnn {

/// What a plan is made for. Tensors as in attention.h; strides: elements between tokens.
struct AttentionKey {
  bool backward = false;
  DType dtype = DType::kBF16;  ///< bf16 or f16
  int64_t batch = 0, queries = 0, keys = 0, heads = 0, head_size = 0;
  int64_t stride_q = 0, stride_k = 0, stride_v = 0;
  float scale = 1.0f;
  bool causal = false;
  bool lengths = false;  ///< of queries and keys, for each sample
  auto operator<=>(const AttentionKey&) const = default;
};

/// "attention forward bf16 (B, T, S, H, D) = (...), ..."; in attention_library_cuda.cu.
std::string describe(const AttentionKey& key);

/// Addresses of a call, multiples of 16 bytes. Lengths: (B) i32, 1..T and 1..S, null without; keys and queries behind
/// them are hidden.
struct AttentionMemory {
  const void *q, *k, *v;
  void* out;   ///< backward: read only
  float* lse;  ///< (B, H, T); backward: read only
  const void* dout;
  void *dq, *dk, *dv;
  float* delta;  ///< backward: (B, H, T), to be written
  const int32_t *query_lengths, *key_lengths;
};

/// The most bytes of workspace that a plan may ask for.
inline int64_t most_workspace_bytes(const AttentionKey& key) {
  return kAttentionLibraryBytes +
         (key.backward ? key.batch * attention_score_bytes(key.queries, key.keys, key.heads) : 0);
}

/// Why cuDNN computes nothing on the context's device; "" when it may.
const std::string& missing_for(const Context& context);

/// Why cuDNN does not compute it on the context's device; "" when it does. The first call with a key makes its plan and
/// keeps it for the stream, so it may not come during a capture.
const std::string& refusal_of(const Context& context, const AttentionKey& key);

/// Runs the plan of a key that is not refused, in the order of the context's stream. Deterministic: the same bits in
/// every run, on equal devices and libraries.
void run_attention(const Context& context, const AttentionKey& key, const AttentionMemory& memory, void* workspace);

/// Which engine runs a key that is not refused, for people.
std::string engine_of(const Context& context, const AttentionKey& key);

}  // namespace permafrost::cuda::cudnn
