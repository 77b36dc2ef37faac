#include "core/kernels/attention_tiles_cuda.h"

// Backward of sequences that one tile of queries and one of keys hold. A block owns a head of a sample: scores are made
// once, and all of dq, dk and dv come from them. Eight warps: warp w has the 16 rows 16 (w % 4), first of queries and
// half w / 4 of their keys, then of an output and half of its columns. Tested by AttentionTest
// (tests/kernels/attention_test.cc), whose sizes up to 64 tokens come here.
namespace permafrost::cuda {

namespace {

constexpr unsigned kShortThreads = 256;
constexpr int kHalfKeys = kOwned / 2;
constexpr int64_t kLargestShortHead = 128;

/// Steps of 16 columns of an output that a warp has at most.
template <int DP>
constexpr int kColumnSteps = (DP / 16 + 1) / 2;

/// Elements of the tile of values, whose place probabilities and gradients of scores take.
template <int DP>
constexpr int kValueElements = kRow<DP> > 2 * kOwned ? kOwned* kRow<DP> : 2 * kOwned* kOwned;

/// Blocks that a processor is to hold at once, as shared memory allows.
template <int DP>
constexpr int kShortBlocks = DP <= 80 ? 4 : 3;

/// Of 64 x 64 numbers, queries x keys. Groups of eight keys change places from query to query, so that eight queries'
/// groups lie in different banks.
__device__ inline int weight_place(int query, int key) {
  return query * kOwned + ((key / 8) ^ (query % 8)) * 8 + key % 8;
}

/// A 16 x 16 operand a: rows of queries and terms of keys; transposed: rows of keys and terms of queries.
template <bool transposed, typename T>
__device__ inline void load_weights(uint32_t (&a)[4], const T* weights, int row, int term) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int query = transposed ? term + lane / 16 * 8 + lane % 8 : row + lane % 16;
  const int key = transposed ? row + lane / 8 % 2 * 8 : term + lane / 16 * 8;
  load_matrices<transposed>(a, weights + weight_place(query, key));
}

/// What delta = rowsum(dout out) needs of `out`, for the eight rows of a warp: eight lanes for a row, four rows at
/// once. Fetched before the tiles are waited for; the sums are those of delta_kernel (attention_cuda.cu), in its order.
template <int DP>
struct OutRows {
  static constexpr int kPasses = 2, kGroups = (DP / 8 + 7) / 8;
  uint4 raw[kPasses][kGroups];

  static __device__ int row(int pass) {
    return static_cast<int>(threadIdx.x / 32) * 8 + pass * 4 + static_cast<int>(threadIdx.x % 32) / 8;
  }
  static __device__ int column(int group) { return (static_cast<int>(threadIdx.x % 8) + 8 * group) * 8; }

  template <typename T>
  __device__ void fetch(const Rows<T>& out, int rows) {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass)
#pragma unroll
      for (int group = 0; group < kGroups; ++group)
        if (out.wide && row(pass) < rows && column(group) < out.size)
          raw[pass][group] = *reinterpret_cast<const uint4*>(out.first + row(pass) * out.stride + column(group));
  }

  template <typename T>
  __device__ void sum(const Rows<T>& out, int rows, const T* dout_tile, float* delta) const {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      float total = 0.0f;
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        if (row(pass) >= rows || column(group) >= out.size) continue;
        T stored[8];
        if (out.wide)
          memcpy(static_cast<void*>(stored), &raw[pass][group], 16);
        else
          for (int i = 0; i < 8; ++i) {
            const bool inside = column(group) + i < out.size;
            stored[i] = inside ? out.first[row(pass) * out.stride + column(group) + i] : from_float<T>(0.0f);
          }
        const Floats<8> dout = load<8>(dout_tile + row(pass) * kRow<DP> + column(group));
#pragma unroll
        for (int i = 0; i < 8; ++i) total = fmaf(to_float(stored[i]), dout.v[i], total);
      }
      total = warp_sum<8>(total);
      if (threadIdx.x % 8 == 0) delta[row(pass)] = total;
    }
  }
};

/// c = weights (16 rows from `row` on) times the rows of a tile, 16 kColumnSteps columns of it. needed(term): whether
/// any of the 16 terms from there on is not zero; others are not read.
template <int DP, bool transposed, typename T, typename Needed>
__device__ inline void weigh_rows(const T* weights, const T* tile, int row, int first_column, Needed needed,
                                  float (&c)[2 * kColumnSteps<DP>][4]) {
  clear(c);
  const T* b = tile + row_offset<DP>() + first_column;
#pragma unroll
  for (int term = 0; term < kOwned; term += 16) {
    if (!needed(term)) continue;
    uint32_t a[4];
    load_weights<transposed>(a, weights, row, term);
#pragma unroll
    for (int step = 0; step < kColumnSteps<DP>; ++step) {
      if (first_column + 16 * step >= DP) continue;
      uint32_t columns[4];
      load_matrices<true>(columns, b + term * kRow<DP> + 16 * step);
      mma<T>(c[2 * step], a, columns[0], columns[1]);
      mma<T>(c[2 * step + 1], a, columns[2], columns[3]);
    }
  }
}

/// Rounds the warp's rows and columns of c, times factor, and writes those below `end`, through its part of a tile that
/// nobody uses any more. head: of row 0.
template <int DP, typename T>
__device__ inline void store_part(const float (&c)[2 * kColumnSteps<DP>][4], float factor, T* tile, int row,
                                  int first_column, int end, T* head, int64_t stride, int size, bool wide) {
  const int lane = static_cast<int>(threadIdx.x % 32), group = lane / 4, t = lane % 4;
  constexpr int kGroups = 2 * kColumnSteps<DP>;
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    if (first_column + 8 * j >= DP) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<uint32_t*>(tile + (row + group + 8 * half) * kRow<DP> + first_column + 8 * j + 2 * t) =
          pack<T>(c[j][2 * half] * factor, c[j][2 * half + 1] * factor);
  }
  __syncwarp();
  for (int i = lane; i < 16 * kGroups; i += 32) {
    const int at = row + i / kGroups, column = first_column + i % kGroups * 8;
    if (at >= end || column >= size) continue;
    const T* from = tile + at * kRow<DP> + column;
    T* to = head + at * stride + column;
    if (wide)
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    else
      for (int e = 0; e < 8 && column + e < size; ++e) to[e] = from[e];
  }
}

/// From scores and dout v^T: probabilities and gradients of scores, rounded to T. Of the warp's 16 queries and 32 keys.
template <typename T>
__device__ inline void store_weights(const Sight& sight, float factor, int row, int first_key, const float* lse_log2,
                                     const float* delta, const float (&s)[4][4], const float (&dp)[4][4], T* p, T* ds) {
  const int lane = static_cast<int>(threadIdx.x % 32), group = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = row + group + 8 * half, visible = sight.visible(query);
    const float lse = lse_log2[query], row_delta = delta[query];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int key = first_key + 8 * j + 2 * t;
      float weight[2], gradient[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const bool seen = sight.sees(query, visible, key + i);
        const float value = probability(s[j][2 * half + i], factor, lse);
        weight[i] = seen ? value : 0.0f;
        gradient[i] = seen ? value * (dp[j][2 * half + i] - row_delta) : 0.0f;
      }
      *reinterpret_cast<uint32_t*>(p + weight_place(query, key)) = pack<T>(weight[0], weight[1]);
      *reinterpret_cast<uint32_t*>(ds + weight_place(query, key)) = pack<T>(gradient[0], gradient[1]);
    }
  }
}

template <typename T, int DP>
__global__ void __launch_bounds__(kShortThreads, kShortBlocks<DP>)
    short_kernel(AttentionCall call, Wide wide, LengthRefusers refusers) {
  PERMAFROST_DYNAMIC_SHARED(T, shared);
  __shared__ float lse_log2[kOwned], delta[kOwned];
  constexpr int kTile = kOwned * kRow<DP>;
  T *q_tile = shared, *k_tile = q_tile + kTile, *dout_tile = k_tile + kTile, *v_tile = dout_tile + kTile;
  T *p = v_tile, *ds = v_tile + kOwned * kOwned;
  const Place place = place_of(call, 1);
  const Sight sight = sight_of(call, place, refusers);
  const int64_t token = call.heads * call.head_size;
  const int size = static_cast<int>(call.head_size), queries = sight.queries, seen = sight.widest(0, queries);
  const Rows<T> q{head_of<T>(call.q, call, place, call.queries, call.stride_q), call.stride_q, size, wide.q};
  const Rows<T> k{head_of<T>(call.k, call, place, call.keys, call.stride_k), call.stride_k, size, wide.k};
  const Rows<T> v{head_of<T>(call.v, call, place, call.keys, call.stride_v), call.stride_v, size, wide.v};
  const Rows<T> dout{head_of<T>(call.dout, call, place, call.queries, token), token, size, wide.dout};
  const Rows<T> out{head_of<T>(static_cast<const void*>(call.out), call, place, call.queries, token), token, size,
                    wide.out};
  const bool scores_too = call.dq || call.dk;  // dv alone needs no gradients of scores

  load_tile<DP, kOwned, kShortThreads>(q, 0, queries, q_tile);
  load_tile<DP, kOwned, kShortThreads>(k, 0, seen, k_tile);
  load_tile<DP, kOwned, kShortThreads>(dout, 0, queries, dout_tile);
  load_tile<DP, kOwned, kShortThreads>(v, 0, scores_too ? seen : 0, v_tile);
  OutRows<DP> out_rows;
  if (scores_too) out_rows.fetch(out, queries);
  if (threadIdx.x < kOwned) {
    const int query = static_cast<int>(threadIdx.x);
    const int64_t at = (place.b * call.heads + place.h) * call.queries + query;
    lse_log2[query] = query < queries ? call.lse[at] * kLog2E : 0.0f;
    if (!scores_too) delta[query] = 0.0f;
  }
  await_copies();
  __syncthreads();
  if (scores_too) out_rows.sum(out, queries, dout_tile, delta);

  const int warp = static_cast<int>(threadIdx.x / 32), row = warp % 4 * 16, first_key = warp / 4 * kHalfKeys;
  const int warp_seen = sight.widest(row, row + 16);
  const bool sees = first_key < warp_seen;
  float s[4][4], dp[4][4];
  clear(dp);
  clear(s);
  if (sees) {
    product_of_rows<DP>(q_tile + row * kRow<DP>, k_tile + first_key * kRow<DP>, s);
    if (scores_too) product_of_rows<DP>(dout_tile + row * kRow<DP>, v_tile + first_key * kRow<DP>, dp);
  }
  __syncthreads();  // deltas are there, and nobody reads v any more
  if (sees) store_weights(sight, call.scale * kLog2E, row, first_key, lse_log2, delta, s, dp, p, ds);
  __syncthreads();

  const int first_column = warp / 4 * 16 * kColumnSteps<DP>;
  const auto key_needed = [&](int key) { return key < warp_seen; };
  const auto query_needed = [&](int query) { return row < sight.widest(query, query + 16); };
  float c[2 * kColumnSteps<DP>][4];
  if (call.dq) {
    weigh_rows<DP, false>(ds, k_tile, row, first_column, key_needed, c);
    __syncthreads();  // nobody reads k any more
    store_part<DP>(c, call.scale, k_tile, row, first_column, queries,
                   head_of<T>(call.dq, call, place, call.queries, call.stride_q), call.stride_q, size, wide.dq);
  }
  if (call.dv) {
    weigh_rows<DP, true>(p, dout_tile, row, first_column, query_needed, c);
    __syncthreads();  // nobody reads dout any more
    store_part<DP>(c, 1.0f, dout_tile, row, first_column, sight.keys,
                   head_of<T>(call.dv, call, place, call.keys, call.stride_v), call.stride_v, size, wide.dv);
  }
  if (call.dk) {
    weigh_rows<DP, true>(ds, q_tile, row, first_column, query_needed, c);
    __syncthreads();  // nobody reads q any more
    store_part<DP>(c, call.scale, q_tile, row, first_column, sight.keys,
                   head_of<T>(call.dk, call, place, call.keys, call.stride_k), call.stride_k, size, wide.dk);
  }
}

}  // namespace

bool attention_is_short(const AttentionCall& call) {
  return call.queries <= kOwned && call.keys <= kOwned && call.head_size <= kLargestShortHead;
}

void attention_backward_short(const Context& context, const AttentionCall& call) {
  if (!call.dq && !call.dk && !call.dv) return;
  with_tile_type(call, [&]<typename T>() {
    with_padded_size(call.head_size, [&]<int DP>() {
      if constexpr (DP <= kLargestShortHead)
        launch_tiles<kShortThreads>(context, short_kernel<T, DP>, grid_of(call, 1),
                                    3 * kOwned * kRow<DP> + kValueElements<DP>, call, wide_of(call),
                                    length_refusers(context, call));
    });
  });
}

}  // namespace permafrost::cuda
