#include "core/kernels/attention_tiles_cuda.h"

namespace permafrost::cuda {

namespace {

// Rows of one step of the tiles that go by: as many as registers allow beside the sums.
template <int DP>
constexpr int kStepKeys = DP <= 128 ? 64 : 32;
template <int DP>
constexpr int kStepQueries = DP <= 64 ? 64 : 32;

/// dq of one tile of 64 queries.
template <typename T, int DP>
__global__ void __launch_bounds__(kTileThreads)
    queries_kernel(AttentionCall call, const float* delta, int tiles, Wide wide, LengthRefusers refusers) {
  PERMAFROST_DYNAMIC_SHARED(T, shared);
  constexpr int kKeys = kStepKeys<DP>, kStepElements = kKeys * kRow<DP>;
  T *q_tile = shared, *dout_tile = q_tile + kOwned * kRow<DP>, *k_tiles = dout_tile + kOwned * kRow<DP>,
    *v_tiles = k_tiles + 2 * kStepElements;
  const Place place = place_of(call, tiles);
  const Sight sight = sight_of(call, place, refusers);
  const int64_t token = call.heads * call.head_size;
  const int size = static_cast<int>(call.head_size), begin = place.tile * kOwned;
  const Rows<T> q{head_of<T>(call.q, call, place, call.queries, call.stride_q), call.stride_q, size, wide.q};
  const Rows<T> dout{head_of<T>(call.dout, call, place, call.queries, token), token, size, wide.dout};
  const Rows<T> k{head_of<T>(call.k, call, place, call.keys, call.stride_k), call.stride_k, size, wide.k};
  const Rows<T> v{head_of<T>(call.v, call, place, call.keys, call.stride_v), call.stride_v, size, wide.v};
  const int seen = sight.widest(begin, begin + kOwned);
  const int lane = static_cast<int>(threadIdx.x % 32), warp_row = static_cast<int>(threadIdx.x / 32) * 16;
  const int row = begin + warp_row, warp_seen = sight.widest(row, row + 16);
  const float factor = call.scale * kLog2E;

  float lse_log2[2] = {}, row_delta[2] = {};
  int visible[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = row + lane / 4 + 8 * half;
    visible[half] = sight.visible(query);
    if (query >= sight.queries) continue;
    const int64_t at = (place.b * call.heads + place.h) * call.queries + query;
    lse_log2[half] = call.lse[at] * kLog2E;
    row_delta[half] = delta[at];
  }
  float dq[DP / 8][4];
  clear(dq);
  load_tile<DP, kOwned>(q, begin, sight.queries, q_tile);
  load_tile<DP, kOwned>(dout, begin, sight.queries, dout_tile);
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
    float s[kKeys / 8][4], dp[kKeys / 8][4];
    product_of_rows<DP>(q_tile + warp_row * kRow<DP>, k_tiles + buffer * kStepElements, s);
    product_of_rows<DP>(dout_tile + warp_row * kRow<DP>, v_tiles + buffer * kStepElements, dp);
    const bool whole = sight.whole(row, row + 16, key + kKeys);
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int half = i / 2, query = row + lane / 4 + 8 * half, other = key + 8 * j + lane % 4 * 2 + i % 2;
        const float p = probability(s[j][i], factor, lse_log2[half]);
        s[j][i] = whole || sight.sees(query, visible[half], other) ? p * (dp[j][i] - row_delta[half]) : 0.0f;
      }
    add_product<DP>(s, k_tiles + buffer * kStepElements, dq);
  }
  await_copies();
  __syncthreads();  // q was copied even where no key is seen; its rows take the output
  const float factors[2] = {call.scale, call.scale};
  store_rows<DP>(dq, factors, q_tile + warp_row * kRow<DP>, row, sight.queries,
                 head_of<T>(call.dq, call, place, call.queries, call.stride_q), call.stride_q, size, wide.dq);
}

/// The first step of queries at or behind `query` of which one sees a key at or behind `key`; the number of queries or
/// more if there is none.
template <int kQueries>
__device__ inline int next_step(const Sight& sight, int query, int key) {
  while (query < sight.queries && sight.widest(query, query + kQueries) <= key) query += kQueries;
  return query;
}

/// lse (in units of log 2) and delta of the queries of one step; 0 behind the last query.
template <int kQueries>
struct RowNumbers {
  float lse_log2[kQueries], delta[kQueries];
  __device__ void load(const AttentionCall& call, const Place& place, const float* all_deltas, int query) {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= kQueries) return;
    const bool inside = query + i < call.queries;
    const int64_t at = (place.b * call.heads + place.h) * call.queries + query + i;
    lse_log2[i] = inside ? call.lse[at] * kLog2E : 0.0f;
    delta[i] = inside && all_deltas ? all_deltas[at] : 0.0f;
  }
};

/// dk and dv, those of them that are wanted (kDk, kDv: that this kernel can make), of one tile of 64 keys.
template <typename T, int DP, bool kDk, bool kDv>
__global__ void __launch_bounds__(kTileThreads)
    keys_kernel(AttentionCall call, const float* delta, int tiles, Wide wide, LengthRefusers refusers) {
  PERMAFROST_DYNAMIC_SHARED(T, shared);
  constexpr int kQueries = kStepQueries<DP>, kStepElements = kQueries * kRow<DP>;
  __shared__ RowNumbers<kQueries> numbers[2];
  T *k_tile = shared, *v_tile = k_tile + kOwned * kRow<DP>, *q_tiles = v_tile + kOwned * kRow<DP>,
    *dout_tiles = q_tiles + 2 * kStepElements;
  const Place place = place_of(call, tiles);
  const Sight sight = sight_of(call, place, refusers);
  const int64_t token = call.heads * call.head_size;
  const int size = static_cast<int>(call.head_size), begin = place.tile * kOwned;
  const Rows<T> q{head_of<T>(call.q, call, place, call.queries, call.stride_q), call.stride_q, size, wide.q};
  const Rows<T> dout{head_of<T>(call.dout, call, place, call.queries, token), token, size, wide.dout};
  const Rows<T> k{head_of<T>(call.k, call, place, call.keys, call.stride_k), call.stride_k, size, wide.k};
  const Rows<T> v{head_of<T>(call.v, call, place, call.keys, call.stride_v), call.stride_v, size, wide.v};
  const bool make_dk = kDk && call.dk, make_dv = kDv && call.dv;
  const int lane = static_cast<int>(threadIdx.x % 32), warp_row = static_cast<int>(threadIdx.x / 32) * 16;
  const int row = begin + warp_row;  // a key
  const float factor = call.scale * kLog2E;

  float dk[kDk ? DP / 8 : 1][4], dv[kDv ? DP / 8 : 1][4];
  clear(dk);
  clear(dv);
  const auto load_step = [&](int query, int buffer) {
    load_tile<DP, kQueries>(q, query, sight.queries, q_tiles + buffer * kStepElements);
    load_tile<DP, kQueries>(dout, query, sight.queries, dout_tiles + buffer * kStepElements);
    numbers[buffer].load(call, place, delta, query);
  };
  int query = next_step<kQueries>(sight, 0, begin);
  if (query < sight.queries) {
    const int seen = sight.widest(0, sight.queries);  // keys from here on are not read
    load_tile<DP, kOwned>(k, begin, seen, k_tile);
    if (make_dk) load_tile<DP, kOwned>(v, begin, seen, v_tile);
    load_step(query, 0);
  }
  int buffer = 0;
  for (int next = 0; query < sight.queries; query = next, buffer ^= 1) {
    await_copies();
    __syncthreads();  // this step's tiles are there, and the other buffers are free
    next = next_step<kQueries>(sight, query + kQueries, begin);
    if (next < sight.queries) load_step(next, buffer ^ 1);
    if (row >= sight.widest(query, query + kQueries)) continue;
    const T *q_tile = q_tiles + buffer * kStepElements, *dout_tile = dout_tiles + buffer * kStepElements;
    const RowNumbers<kQueries>& of = numbers[buffer];
    float p[kQueries / 8][4], ds[kDk ? kQueries / 8 : 1][4];  // keys x queries
    product_of_rows<DP>(k_tile + warp_row * kRow<DP>, q_tile, p);
    if constexpr (kDk)
      if (make_dk) product_of_rows<DP>(v_tile + warp_row * kRow<DP>, dout_tile, ds);
    const bool whole = sight.whole(query, query + kQueries, row + 16);
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * j + lane % 4 * 2 + i % 2, t = query + column, key = row + lane / 4 + i / 2 * 8;
        const bool seen = whole || sight.sees(t, sight.visible(t), key);
        p[j][i] = seen ? probability(p[j][i], factor, of.lse_log2[column]) : 0.0f;
        if constexpr (kDk)
          if (make_dk) ds[j][i] = seen ? p[j][i] * (ds[j][i] - of.delta[column]) : 0.0f;
      }
    if constexpr (kDv)
      if (make_dv) add_product<DP>(p, dout_tile, dv);
    if constexpr (kDk)
      if (make_dk) add_product<DP>(ds, q_tile, dk);
  }
  // A warp's rows of k and v are read by that warp alone: they take the outputs.
  __syncwarp();
  const int keys = sight.keys;
  if constexpr (kDk)
    if (make_dk) {
      const float factors[2] = {call.scale, call.scale};
      store_rows<DP>(dk, factors, k_tile + warp_row * kRow<DP>, row, keys,
                     head_of<T>(call.dk, call, place, call.keys, call.stride_k), call.stride_k, size, wide.dk);
    }
  if constexpr (kDv)
    if (make_dv) {
      const float factors[2] = {1.0f, 1.0f};
      store_rows<DP>(dv, factors, v_tile + warp_row * kRow<DP>, row, keys,
                     head_of<T>(call.dv, call, place, call.keys, call.stride_v), call.stride_v, size, wide.dv);
    }
}

int64_t tiles_of(int64_t tokens) { return (tokens + kOwned - 1) / kOwned; }

template <typename T, int DP, bool kDk, bool kDv>
void launch_keys(const Context& context, const AttentionCall& call, const float* delta) {
  constexpr int64_t kElements = (2 * kOwned + 4 * kStepQueries<DP>)*kRow<DP>;
  const int64_t tiles = tiles_of(call.keys);
  launch_tiles(context, keys_kernel<T, DP, kDk, kDv>, grid_of(call, tiles), kElements, call, delta, tiles,
               wide_of(call), length_refusers(context, call));
}

}  // namespace

void attention_backward_tiles(const Context& context, const AttentionCall& call, const float* delta) {
  with_tile_type(call, [&]<typename T>() {
    with_padded_size(call.head_size, [&]<int DP>() {
      if constexpr (DP <= 128) {
        if (call.dk || call.dv) launch_keys<T, DP, true, true>(context, call, delta);
      } else {  // the sums of both would not fit a thread's registers
        if (call.dk) launch_keys<T, DP, true, false>(context, call, delta);
        if (call.dv) launch_keys<T, DP, false, true>(context, call, delta);
      }
      if (!call.dq) return;
      constexpr int64_t kElements = (2 * kOwned + 4 * kStepKeys<DP>)*kRow<DP>;
      const int64_t tiles = tiles_of(call.queries);
      launch_tiles(context, queries_kernel<T, DP>, grid_of(call, tiles), kElements, call, delta, tiles, wide_of(call),
                   length_refusers(context, call));
    });
  });
}

}  // namespace permafrost::cuda
