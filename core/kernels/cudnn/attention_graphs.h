#pragma once
#include "core/kernels/cudnn/attention.h"
#include "core/kernels/cudnn/graph.h"

// Attention as graphs of cuDNN's operations.
namespace permafrost::cuda::cudnn {

/// Addresses for Plan::run, in this order. Forward: q, k, v, out, lse; backward: q, k, v, out, dout, lse, dq, dk, dv,
/// delta. With lengths: those of queries, those of keys.
/// Backward makes dq as a product with the gradients of all scores, which lie in the workspace, and not as a sum to
/// which blocks add in any order: so it is deterministic, and takes its workspace. Errors: Refusal.
Plan plan_attention(const AttentionKey& key, const Target& target, int64_t most_bytes);

}  // namespace permafrost::cuda::cudnn
