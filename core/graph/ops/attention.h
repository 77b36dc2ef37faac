#pragma once
#include "core/graph/graph.h"
#include "core/kernels/attention.h"

namespace permafrost {

/// What an attention in a graph is made of. `lengths` (B) i32, `allowed` (B, T, S) u8 and
/// `open_lengths` are inputs of the graph; Value{} = not given. Meanings: core/kernels/attention.h.
struct AttentionConfig {
  int64_t heads = 1;
  float scale = 1.0f;
  MaskKind mask = MaskKind::kNone;
  Value lengths, allowed;
  Value open_lengths;  ///< (B) i32 keys that query 0 sees under kCausalOpenFirst; not given = those that lengths say
};

/// Self-attention on a fused product. qkv: (B, T, 3 C), columns ordered q, k, v, heads contiguous inside each;
/// out: (B, T, C).
Value attention_fused(Graph& graph, Value qkv, const AttentionConfig& config);

/// Attention on separate values. q: (B, T, C), k, v: (B, S, C); out: (B, T, C).
Value attention(Graph& graph, Value q, Value k, Value v, const AttentionConfig& config);

}  // namespace permafrost
