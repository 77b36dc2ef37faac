#pragma once
#include <algorithm>
#include <cstdint>

#include "core/base/narrow.h"
#include "core/kernels/attention_cuda.h"
#include "core/kernels/elements_cuda.h"

// What the kernels of attention on CUDA have in common. For attention_*_cuda.cu alone.
namespace permafrost::cuda {

// Tiles on tensor cores (bf16 and f16, head sizes up to 256), and f32 arithmetic on any dtype and any head size.
// delta: (B, H, T), rowsum(dout out).
constexpr int64_t kLargestTiledHead = 256;
void attention_forward_tiles(const Context& context, const AttentionCall& call);
void attention_backward_tiles(const Context& context, const AttentionCall& call, const float* delta);
// One tile of queries and one of keys, all gradients in one kernel, which makes delta itself.
bool attention_is_short(const AttentionCall& call);
void attention_backward_short(const Context& context, const AttentionCall& call);
void attention_forward_plain(const Context& context, const AttentionCall& call);
void attention_backward_plain(const Context& context, const AttentionCall& call, const float* delta);

constexpr float kLog2E = 1.44269504089f, kLn2 = 0.69314718056f;

/// The part of a call that one block computes: a tile of tokens (and maybe of columns) of one head of one sample.
struct Place {
  int tile;
  int64_t b, h;
};

__device__ inline Place place_of(const AttentionCall& call, int tiles) {
  const int64_t head = blockIdx.x / static_cast<unsigned>(tiles);
  return {static_cast<int>(blockIdx.x % static_cast<unsigned>(tiles)), head / call.heads, head % call.heads};
}

/// Blocks for `tiles` tiles of every head.
inline unsigned grid_of(const AttentionCall& call, int64_t tiles) {
  return static_cast<unsigned>(narrow<int>(tiles * call.heads * call.batch));  // a grid's limit
}

/// Where one head of one sample begins in a tensor (B, tokens, H, D).
template <typename T>
__device__ inline const T* head_of(const void* base, const AttentionCall& call, const Place& place, int64_t tokens,
                                   int64_t stride) {
  return static_cast<const T*>(base) + place.b * tokens * stride + place.h * call.head_size;
}
template <typename T>
__device__ inline T* head_of(void* base, const AttentionCall& call, const Place& place, int64_t tokens,
                             int64_t stride) {
  return static_cast<T*>(base) + place.b * tokens * stride + place.h * call.head_size;
}

/// Which keys the queries of one sample see: query t those before visible(t), of which `allowed` may hide some.
struct Sight {
  int queries, keys, valid, open;
  bool causal, open_first;
  const uint8_t* allowed;

  __device__ int visible(int t) const {
    if (t >= queries) return 0;
    if (open_first && t == 0) return open;
    return causal ? std::min(t + 1, valid) : valid;
  }
  /// No query of [begin, end) sees a key at or behind this.
  __device__ int widest(int begin, int end) const {
    if (begin >= queries) return 0;
    const int most = causal ? std::min(std::min(end, queries), valid) : valid;
    return open_first && begin == 0 ? std::max(most, open) : most;
  }
  /// All queries of [begin, end) see the keys before this, as far as `allowed` lets them.
  __device__ int narrowest(int begin, int end) const {
    if (end > queries) return 0;
    const int least = causal ? std::min(begin + 1, valid) : valid;
    return open_first && begin == 0 ? std::min(std::min(2, valid), open) : least;
  }
  /// Every query of [begin, end) sees every key before `key_end`.
  __device__ bool whole(int begin, int end, int key_end) const { return !allowed && key_end <= narrowest(begin, end); }
  __device__ bool sees(int t, int visible, int key) const {
    return key < visible && (!allowed || allowed[static_cast<int64_t>(t) * keys + key] != 0);
  }
};

struct LengthRefusers {
  Refuser lengths, open_lengths;
};
inline LengthRefusers length_refusers(const Context& context, const AttentionCall& call) {
  return {refuser(context, Refusal::kLength, call.keys), refuser(context, Refusal::kOpenLength, call.keys)};
}

/// Lengths out of range are reported by the one block that has the first tile of the sample's first head.
__device__ inline Sight sight_of(const AttentionCall& call, const Place& place, LengthRefusers refusers) {
  const bool reports = place.tile == 0 && place.h == 0 && threadIdx.x == 0;
  const int keys = static_cast<int>(call.keys);
  const auto checked = [&](const int32_t* lengths, const Refuser& refuser) {
    const int length = lengths[place.b];
    if (reports && (length < 0 || length > keys)) refuse(refuser, place.b, length);
    return std::min(std::max(length, 0), keys);
  };
  const int valid = call.lengths ? checked(call.lengths, refusers.lengths) : keys;
  int open = call.open_row_sees_padding ? keys : valid;
  if (call.open_lengths) open = checked(call.open_lengths, refusers.open_lengths);
  const uint8_t* allowed = call.allowed ? call.allowed + place.b * call.queries * call.keys : nullptr;
  return {static_cast<int>(call.queries), keys, valid, open, call.causal, call.open_first, allowed};
}

/// Of a score, with lse in units of log 2. 2^120: a score can be above its row's lse by rounding alone, but nothing
/// below may turn into inf * 0. NaN stays NaN.
__device__ inline float probability(float score, float factor, float lse_log2) {
  const float x = fmaf(score, factor, -lse_log2);
  return fast_exp2(x > 120.0f ? 120.0f : x);
}

}  // namespace permafrost::cuda
