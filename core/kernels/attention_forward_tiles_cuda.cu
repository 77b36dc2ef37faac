#include "core/kernels/attention_tiles_cuda.h"

namespace permafrost::cuda {

namespace {

template <int DP>
constexpr int kForwardKeys = DP <= 128 ? 64 : 32;  // keys of one step

/// What a thread knows of its rows g and g + 8. `top`: the largest scaled score so far, in units of log 2. `sum`: of
/// the thread's own columns.
struct Softmax {
  float top[2], sum[2];
};

/// The scores of one query that it does not see become -inf. key: of the thread's first one.
template <int kSteps>
__device__ inline void hide(const Sight& sight, int query, int key, int half, float (&s)[kSteps][4]) {
  const int visible = sight.visible(query);
#pragma unroll
  for (int j = 0; j < kSteps; ++j)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (key + 8 * j + i >= visible) s[j][2 * half + i] = -INFINITY;
  if (!sight.allowed) return;
#pragma unroll
  for (int j = 0; j < kSteps; ++j)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (!sight.sees(query, visible, key + 8 * j + i)) s[j][2 * half + i] = -INFINITY;
}

/// Scores -> e^(scaled score - top) where seen, 0 elsewhere; `out` is brought to the new maximum.
template <int DP, int kSteps>
__device__ inline void softmax_step(const Sight& sight, float factor, int row, int key, float (&s)[kSteps][4],
                                    Softmax& state, float (&out)[DP / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x % 32), group = lane / 4, t = lane % 4;
  const bool whole = sight.whole(row, row + 16, key + 8 * kSteps);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = state.top[half];
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) s[j][i] *= factor;
    if (!whole) hide(sight, row + group + 8 * half, key + 2 * t, half, s);
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
      top = fmaxf(top, fmaxf(s[j][2 * half], s[j][2 * half + 1]));  // goes past NaN, which the sum will have
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    const float base = top == -INFINITY ? 0.0f : top;  // nothing seen so far: no inf - inf
    const float shrink = fast_exp2(state.top[half] - base);
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kSteps; ++j)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        s[j][i] = fast_exp2(s[j][i] - base);
        sum += s[j][i];
      }
    state.sum[half] = fmaf(state.sum[half], shrink, sum);
    state.top[half] = top;
#pragma unroll
    for (int j = 0; j < DP / 8; ++j) {
      out[j][2 * half] *= shrink;
      out[j][2 * half + 1] *= shrink;
    }
  }
}

/// Buffers that keys and values of so many tokens need: short sequences leave room for more blocks.
template <int DP>
int forward_buffers(int64_t keys) {
  return keys > kForwardKeys<DP> ? 2 : 1;
}

/// One tile of 64 queries. The next step's keys and values are copied while this one's are in work.
template <typename T, int DP>
__global__ void __launch_bounds__(kTileThreads, DP <= 128 ? 4 : 1)
    forward_kernel(AttentionCall call, int tiles, int buffers, Wide wide, LengthRefusers refusers) {
  PERMAFROST_DYNAMIC_SHARED(T, shared);
  constexpr int kKeys = kForwardKeys<DP>, kStepElements = kKeys * kRow<DP>;
  T *q_tile = shared, *k_tiles = q_tile + kOwned * kRow<DP>, *v_tiles = k_tiles + buffers * kStepElements;
  const Place place = place_of(call, tiles);
  const Sight sight = sight_of(call, place, refusers);
  const int size = static_cast<int>(call.head_size), begin = place.tile * kOwned;
  const Rows<T> q{head_of<T>(call.q, call, place, call.queries, call.stride_q), call.stride_q, size, wide.q};
  const Rows<T> k{head_of<T>(call.k, call, place, call.keys, call.stride_k), call.stride_k, size, wide.k};
  const Rows<T> v{head_of<T>(call.v, call, place, call.keys, call.stride_v), call.stride_v, size, wide.v};
  const int seen = sight.widest(begin, begin + kOwned);
  const int warp_row = static_cast<int>(threadIdx.x / 32) * 16, row = begin + warp_row;
  const int warp_seen = sight.widest(row, row + 16);
  const float factor = call.scale * kLog2E;

  float out[DP / 8][4];
  clear(out);
  Softmax state{{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
  load_tile<DP, kOwned>(q, begin, sight.queries, q_tile);
  if (seen > 0) {
    load_tile<DP, kKeys>(k, 0, seen, k_tiles);
    load_tile<DP, kKeys>(v, 0, seen, v_tiles);
  }
  int buffer = 0;
  for (int key = 0; key < seen; key += kKeys, buffer ^= 1) {
    await_copies();
    __syncthreads();  // this step's tiles are there, and the other buffers are free
    if (key + kKeys < seen) {
      load_tile<DP, kKeys>(k, key + kKeys, seen, k_tiles + (buffer ^ 1) * kStepElements);
      load_tile<DP, kKeys>(v, key + kKeys, seen, v_tiles + (buffer ^ 1) * kStepElements);
    }
    if (key >= warp_seen) continue;
    float s[kKeys / 8][4];
    product_of_rows<DP>(q_tile + warp_row * kRow<DP>, k_tiles + buffer * kStepElements, s);
    softmax_step<DP>(sight, factor, row, key, s, state, out);
    add_product<DP>(s, v_tiles + buffer * kStepElements, out);
  }
  await_copies();
  __syncthreads();  // q was copied even where no key is seen; its rows take the output

  const int lane = static_cast<int>(threadIdx.x % 32);
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = state.sum[half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    inverse[half] = sum == 0.0f ? 0.0f : 1.0f / sum;  // a row that sees something has 1 at least
    const int query = row + lane / 4 + 8 * half;
    if (call.lse && lane % 4 == 0 && query < sight.queries)
      call.lse[(place.b * call.heads + place.h) * call.queries + query] =
          sum == 0.0f ? -INFINITY : (state.top[half] + log2f(sum)) * kLn2;
  }
  const int64_t token = call.heads * call.head_size;
  store_rows<DP>(out, inverse, q_tile + warp_row * kRow<DP>, row, sight.queries,
                 head_of<T>(call.out, call, place, call.queries, token), token, size, wide.out);
}

}  // namespace

void attention_forward_tiles(const Context& context, const AttentionCall& call) {
  const int64_t tiles = (call.queries + kOwned - 1) / kOwned;
  with_tile_type(call, [&]<typename T>() {
    with_padded_size(call.head_size, [&]<int DP>() {
      const int buffers = forward_buffers<DP>(call.keys);
      const int64_t elements = (kOwned + 2 * buffers * kForwardKeys<DP>)*kRow<DP>;
      launch_tiles(context, forward_kernel<T, DP>, grid_of(call, tiles), elements, call, tiles, buffers, wide_of(call),
                   length_refusers(context, call));
    });
  });
}

}  // namespace permafrost::cuda
