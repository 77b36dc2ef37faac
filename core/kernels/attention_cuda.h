#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "core/device/context.h"
#include "core/kernels/attention.h"
#include "core/kernels/attention_cpu.h"

namespace permafrost::cuda {

/// As attention_forward and attention_backward (attention.h), arguments checked and described as for the CPU, but for
/// the values of the lengths: the kernels check those. `workspace`: attention_workspace of a CUDA device.
/// The order of every sum follows from the shapes alone. The project's own backward makes the scores twice, in a kernel
/// that owns keys (dk, dv) and one that owns queries (dq): so no two blocks add to one number, and no float goes
/// through an atomic. Up to 64 queries and keys with heads of up to 128 need one kernel: a block owns all of a head.
/// bf16 and f16 of usual head sizes run in cuDNN where there is one: see attention_library_cuda.h.
void attention_forward(const Context& context, const AttentionCall& call, void* workspace);
void attention_backward(const Context& context, const AttentionCall& call, void* workspace);

/// Why cuDNN computes no attention on the context's stream; "" where it does.
std::string why_no_cudnn(const Context& context);
/// As attention.h says.
std::vector<AttentionChoice> attention_choices(const Context& context);

/// What a plan of cuDNN may need besides gradients of scores.
constexpr int64_t kAttentionLibraryBytes = int64_t{1} << 20;
/// Where backward has more gradients of scores than this, it runs for a part of the samples after the other.
constexpr int64_t kMostScoreBytes = int64_t{256} << 20;
constexpr int64_t kAttentionAlignment = 256;

/// Bytes of the gradients of one sample's scores, in 16 bits, as cuDNN keeps them: whole tiles.
constexpr int64_t attention_score_bytes(int64_t queries, int64_t keys, int64_t heads) {
  constexpr int64_t kTile = 128;
  return 2 * heads * ((queries + kTile - 1) / kTile * kTile) * ((keys + kTile - 1) / kTile * kTile);
}

/// Samples that backward takes at once, but for the last time, when it may be fewer.
constexpr int64_t attention_samples_at_once(int64_t batch, int64_t queries, int64_t keys, int64_t heads) {
  const int64_t most = std::max<int64_t>(1, kMostScoreBytes / attention_score_bytes(queries, keys, heads));
  const int64_t parts = (batch + most - 1) / most;
  return (batch + parts - 1) / parts;
}

/// Whether cuDNN's attention is for such tensors, as far as the workspace goes.
constexpr bool library_has_attention(DType dtype, int64_t queries, int64_t keys, int64_t heads, int64_t head_size) {
  return attention_score_bytes(queries, keys, heads) <= 4 * kMostScoreBytes && dtype != DType::kF32 &&
         head_size % 8 == 0 && head_size <= 128 && queries > 1 && keys > 1;
}

/// Where things lie in a workspace, in bytes behind its first multiple of kAttentionAlignment; -1: nowhere.
struct AttentionWorkspace {
  int64_t delta = -1;    ///< (B, H, T) f32, rowsum(dout out)
  int64_t lse = -1;      ///< (B, H, T) f32
  int64_t lengths = -1;  ///< 4 x (B) i32
  int64_t library = -1;  ///< cuDNN's own
  int64_t bytes = 0;     ///< of all, with room to begin at a multiple
};

/// A pure function of its arguments, none of which is 0: whether there is a cuDNN is not known when plans are made.
constexpr AttentionWorkspace attention_workspace(bool backward, int64_t batch, int64_t queries, int64_t keys,
                                                 int64_t heads, int64_t head_size, DType dtype) {
  AttentionWorkspace result;
  int64_t used = 0;
  const auto take = [&](int64_t bytes) {
    const int64_t at = used;
    used += (bytes + kAttentionAlignment - 1) / kAttentionAlignment * kAttentionAlignment;
    return at;
  };
  const int64_t rows = 4 * batch * heads * queries;
  if (backward) result.delta = take(rows);
  if (library_has_attention(dtype, queries, keys, heads, head_size)) {
    result.lse = take(rows);
    result.lengths = take(4 * 4 * batch);
    const int64_t samples = backward ? attention_samples_at_once(batch, queries, keys, heads) : 0;
    result.library = take(kAttentionLibraryBytes + samples * attention_score_bytes(queries, keys, heads));
  }
  result.bytes = used > 0 ? used + kAttentionAlignment : 0;
  return result;
}

}  // namespace permafrost::cuda
