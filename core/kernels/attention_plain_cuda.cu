#include "core/kernels/attention_view_cuda.h"

// Attention in f32 arithmetic, for f32 and for heads too large for tensor-core tiles. The structure is that of the
// tiles: a block owns 32 rows (queries, or in backward keys) and goes over 32 of the others at a time; of the output it
// makes 128 columns, and larger heads take several blocks, each of which makes the scores anew. A warp has four rows.
namespace permafrost::cuda {

namespace {

constexpr int kTile = 32;      // rows owned, others of one step, and elements of a head that are multiplied at once
constexpr int kStride = 36;    // floats between rows of a small tile: 16-byte reads without bank conflicts
constexpr int kColumns = 128;  // of the output
constexpr int kPlainThreads = 256, kWarpRows = kTile / (kPlainThreads / 32);

/// Rows [begin, begin + 32) of one head; those from `end` on are zeros and not read.
template <typename T>
struct PlainRows {
  const T* first;
  int64_t stride;
  int begin, end;
  __device__ float at(int row, int column, int size) const {
    const bool inside = begin + row < end && column < size;
    return inside ? to_float(first[(begin + row) * stride + column]) : 0.0f;
  }
};

struct Tiles {
  alignas(16) float a[kTile * kStride], b[kTile * kStride];           // operands of scores
  alignas(16) float weights[kTile * kStride], more[kTile * kStride];  // owned x others
  alignas(16) float columns[kTile * kColumns];                        // others x output columns
  float factor[kTile];
};

__device__ inline float4 four(const float* p) { return *reinterpret_cast<const float4*>(p); }

/// dot[r] = row 4 warp + r of a, times row `lane` of b.
template <typename T>
__device__ inline void dots(const PlainRows<T>& a, const PlainRows<T>& b, int size, Tiles& tiles,
                            float (&dot)[kWarpRows]) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  for (float& value : dot) value = 0.0f;
  for (int d = 0; d < size; d += kTile) {
    __syncthreads();  // nobody reads any more what stands there
#pragma unroll
    for (int row = warp; row < kTile; row += kPlainThreads / 32) {
      tiles.a[row * kStride + lane] = a.at(row, d + lane, size);
      tiles.b[row * kStride + lane] = b.at(row, d + lane, size);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTile; i += 4) {
      const float4 y = four(tiles.b + lane * kStride + i);
#pragma unroll
      for (int r = 0; r < kWarpRows; ++r) {
        const float4 x = four(tiles.a + (warp * kWarpRows + r) * kStride + i);
        dot[r] = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, dot[r]))));
      }
    }
  }
}

/// sums[r][j] += weights of row 4 warp + r, times column column + lane + 32 j of the others' rows. To be called after
/// the warp wrote its weights.
template <typename T>
__device__ inline void add_weighted(const float* weights, const PlainRows<T>& others, int column, int size,
                                    Tiles& tiles, float (&sums)[kWarpRows][kColumns / 32]) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  __syncthreads();  // nobody reads any more what stands there
  for (int row = warp; row < kTile; row += kPlainThreads / 32)
#pragma unroll
    for (int j = 0; j < kColumns; j += 32)
      tiles.columns[row * kColumns + j + lane] = others.at(row, column + j + lane, size);
  __syncthreads();
  for (int other = 0; other < kTile; ++other) {
    float y[kColumns / 32];
#pragma unroll
    for (int j = 0; j < kColumns / 32; ++j) y[j] = tiles.columns[other * kColumns + 32 * j + lane];
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const float x = weights[(warp * kWarpRows + r) * kStride + other];
#pragma unroll
      for (int j = 0; j < kColumns / 32; ++j) sums[r][j] = fmaf(x, y[j], sums[r][j]);
    }
  }
}

/// Writes the rows of sums below `end`, row r of a warp times factor[r].
template <typename T>
__device__ inline void store_sums(const float (&sums)[kWarpRows][kColumns / 32], const float (&factor)[kWarpRows],
                                  int begin, int end, int column, int size, T* head, int64_t stride) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r)
#pragma unroll
    for (int j = 0; j < kColumns / 32; ++j) {
      const int row = begin + warp * kWarpRows + r, at = column + 32 * j + lane;
      if (row < end && at < size) head[row * stride + at] = from_float<T>(sums[r][j] * factor[r]);
    }
}

/// Tiles of tokens times tiles of output columns, and back.
struct PlainPlace {
  Place place;
  int begin, column;
};
__device__ inline PlainPlace plain_place(const AttentionCall& call, int tiles, int column_tiles) {
  Place place = place_of(call, tiles * column_tiles);
  const int column = place.tile % column_tiles * kColumns, tile = place.tile / column_tiles;
  return {place, tile * kTile, column};
}

/// One row of the tile by eight lanes, four keys each: scaled scores -> e^(score - top); the old output's factor goes
/// to tiles.factor. `sum` is of the lane's own keys.
__device__ inline void plain_softmax_step(Tiles& tiles, float& top, float& sum) {
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int row = warp * kWarpRows + lane / 8;
  float* weights = tiles.weights + row * kStride + lane % 8 * 4;
  const float old = top;
  float largest = top;
#pragma unroll
  for (int i = 0; i < 4; ++i) largest = fmaxf(largest, weights[i]);
  top = warp_maximum<8>(largest);
  const float base = top == -INFINITY ? 0.0f : top;  // nothing seen so far: no inf - inf
  const float shrink = exp2f(old - base);
  float part = 0.0f;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    weights[i] = exp2f(weights[i] - base);
    part += weights[i];
  }
  sum = fmaf(sum, shrink, part);
  if (lane % 8 == 0) tiles.factor[row] = shrink;
}

template <typename T>
__global__ void __launch_bounds__(kPlainThreads)
    plain_forward_kernel(AttentionCall call, int tile_count, int column_tiles, LengthRefusers refusers) {
  __shared__ Tiles tiles;
  const PlainPlace own = plain_place(call, tile_count, column_tiles);
  const Place& place = own.place;
  const Sight sight = sight_of(call, place, refusers);
  const int size = static_cast<int>(call.head_size);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const PlainRows<T> q{head_of<T>(call.q, call, place, call.queries, call.stride_q), call.stride_q, own.begin,
                       sight.queries};
  const int seen = sight.widest(own.begin, own.begin + kTile);
  PlainRows<T> k{head_of<T>(call.k, call, place, call.keys, call.stride_k), call.stride_k, 0, seen};
  PlainRows<T> v{head_of<T>(call.v, call, place, call.keys, call.stride_v), call.stride_v, 0, seen};
  const float factor = call.scale * kLog2E;

  float out[kWarpRows][kColumns / 32] = {}, top = -INFINITY, sum = 0.0f;
  for (int key = 0; key < seen; key += kTile) {
    k.begin = v.begin = key;
    float s[kWarpRows];
    dots(q, k, size, tiles, s);
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const int row = warp * kWarpRows + r, query = own.begin + row;
      const bool sees = sight.sees(query, sight.visible(query), key + lane);
      tiles.weights[row * kStride + lane] = sees ? s[r] * factor : -INFINITY;
    }
    __syncwarp();
    plain_softmax_step(tiles, top, sum);
    __syncwarp();
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r)
#pragma unroll
      for (int j = 0; j < kColumns / 32; ++j) out[r][j] *= tiles.factor[warp * kWarpRows + r];
    add_weighted(tiles.weights, v, own.column, size, tiles, out);
  }
  sum = warp_sum<8>(sum);
  const int row = warp * kWarpRows + lane / 8, query = own.begin + row;
  __syncwarp();
  if (lane % 8 == 0) {
    tiles.factor[row] = sum == 0.0f ? 0.0f : 1.0f / sum;  // a row that sees something has 1 at least
    if (call.lse && own.column == 0 && query < sight.queries)
      call.lse[(place.b * call.heads + place.h) * call.queries + query] =
          sum == 0.0f ? -INFINITY : (top + log2f(sum)) * kLn2;
  }
  __syncwarp();
  float inverse[kWarpRows];
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) inverse[r] = tiles.factor[warp * kWarpRows + r];
  const int64_t token = call.heads * call.head_size;
  store_sums(out, inverse, own.begin, sight.queries, own.column, size,
             head_of<T>(call.out, call, place, call.queries, token), token);
}

template <typename T>
__global__ void __launch_bounds__(kPlainThreads)
    plain_queries_kernel(AttentionCall call, const float* delta, int tile_count, int column_tiles,
                         LengthRefusers refusers) {
  __shared__ Tiles tiles;
  const PlainPlace own = plain_place(call, tile_count, column_tiles);
  const Place& place = own.place;
  const Sight sight = sight_of(call, place, refusers);
  const int64_t token = call.heads * call.head_size;
  const int size = static_cast<int>(call.head_size);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const PlainRows<T> q{head_of<T>(call.q, call, place, call.queries, call.stride_q), call.stride_q, own.begin,
                       sight.queries};
  const PlainRows<T> dout{head_of<T>(call.dout, call, place, call.queries, token), token, own.begin, sight.queries};
  const int seen = sight.widest(own.begin, own.begin + kTile);
  PlainRows<T> k{head_of<T>(call.k, call, place, call.keys, call.stride_k), call.stride_k, 0, seen};
  PlainRows<T> v{head_of<T>(call.v, call, place, call.keys, call.stride_v), call.stride_v, 0, seen};
  const float factor = call.scale * kLog2E;

  float lse_log2[kWarpRows] = {}, row_delta[kWarpRows] = {}, dq[kWarpRows][kColumns / 32] = {};
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    const int query = own.begin + warp * kWarpRows + r;
    if (query >= sight.queries) continue;
    const int64_t at = (place.b * call.heads + place.h) * call.queries + query;
    lse_log2[r] = call.lse[at] * kLog2E;
    row_delta[r] = delta[at];
  }
  for (int key = 0; key < seen; key += kTile) {
    k.begin = v.begin = key;
    float s[kWarpRows], dp[kWarpRows];
    dots(q, k, size, tiles, s);
    dots(dout, v, size, tiles, dp);
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const int row = warp * kWarpRows + r, query = own.begin + row;
      const bool sees = sight.sees(query, sight.visible(query), key + lane);
      const float ds = probability(s[r], factor, lse_log2[r]) * (dp[r] - row_delta[r]);
      tiles.weights[row * kStride + lane] = sees ? ds : 0.0f;
    }
    add_weighted(tiles.weights, k, own.column, size, tiles, dq);
  }
  float factors[kWarpRows];
  for (float& value : factors) value = call.scale;
  store_sums(dq, factors, own.begin, sight.queries, own.column, size,
             head_of<T>(call.dq, call, place, call.queries, call.stride_q), call.stride_q);
}

template <typename T>
__global__ void __launch_bounds__(kPlainThreads)
    plain_keys_kernel(AttentionCall call, const float* delta, int tile_count, int column_tiles,
                      LengthRefusers refusers) {
  __shared__ Tiles tiles;
  const PlainPlace own = plain_place(call, tile_count, column_tiles);
  const Place& place = own.place;
  const Sight sight = sight_of(call, place, refusers);
  const int64_t token = call.heads * call.head_size;
  const int size = static_cast<int>(call.head_size);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int seen = sight.widest(0, sight.queries);  // keys from here on are not read
  const PlainRows<T> k{head_of<T>(call.k, call, place, call.keys, call.stride_k), call.stride_k, own.begin, seen};
  const PlainRows<T> v{head_of<T>(call.v, call, place, call.keys, call.stride_v), call.stride_v, own.begin, seen};
  PlainRows<T> q{head_of<T>(call.q, call, place, call.queries, call.stride_q), call.stride_q, 0, sight.queries};
  PlainRows<T> dout{head_of<T>(call.dout, call, place, call.queries, token), token, 0, sight.queries};
  const float factor = call.scale * kLog2E;

  float dk[kWarpRows][kColumns / 32] = {}, dv[kWarpRows][kColumns / 32] = {};
  for (int begin = 0; begin < sight.queries; begin += kTile) {
    if (sight.widest(begin, begin + kTile) <= own.begin) continue;
    q.begin = dout.begin = begin;
    float p[kWarpRows], dp[kWarpRows] = {};
    dots(k, q, size, tiles, p);
    if (call.dk) dots(v, dout, size, tiles, dp);
    const int query = begin + lane, visible = sight.visible(query);
    const bool inside = query < sight.queries;
    const int64_t at = (place.b * call.heads + place.h) * call.queries + query;
    const float lse_log2 = inside ? call.lse[at] * kLog2E : 0.0f, row_delta = inside && call.dk ? delta[at] : 0.0f;
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const int row = warp * kWarpRows + r;
      const bool sees = sight.sees(query, visible, own.begin + row);
      p[r] = sees ? probability(p[r], factor, lse_log2) : 0.0f;
      tiles.weights[row * kStride + lane] = p[r];
      tiles.more[row * kStride + lane] = sees ? p[r] * (dp[r] - row_delta) : 0.0f;
    }
    if (call.dv) add_weighted(tiles.weights, dout, own.column, size, tiles, dv);
    if (call.dk) add_weighted(tiles.more, q, own.column, size, tiles, dk);
  }
  float factors[kWarpRows];
  for (float& value : factors) value = 1.0f;
  if (call.dv)
    store_sums(dv, factors, own.begin, sight.keys, own.column, size,
               head_of<T>(call.dv, call, place, call.keys, call.stride_v), call.stride_v);
  for (float& value : factors) value = call.scale;
  if (call.dk)
    store_sums(dk, factors, own.begin, sight.keys, own.column, size,
               head_of<T>(call.dk, call, place, call.keys, call.stride_k), call.stride_k);
}

int64_t tiles_of(int64_t tokens) { return (tokens + kTile - 1) / kTile; }
int64_t column_tiles_of(const AttentionCall& call) { return (call.head_size + kColumns - 1) / kColumns; }

template <typename Body>
void with_type(const AttentionCall& call, Body&& body) {
  with_dtype(call.dtype, body);
}

}  // namespace

void attention_forward_plain(const Context& context, const AttentionCall& call) {
  const int64_t tiles = tiles_of(call.queries), columns = column_tiles_of(call);
  with_type(call, [&]<typename T>(T*) {
    launch(context, plain_forward_kernel<T>, grid_of(call, tiles * columns), kPlainThreads, 0, call, tiles, columns,
           length_refusers(context, call));
  });
}

void attention_backward_plain(const Context& context, const AttentionCall& call, const float* delta) {
  const int64_t columns = column_tiles_of(call), query_tiles = tiles_of(call.queries), key_tiles = tiles_of(call.keys);
  with_type(call, [&]<typename T>(T*) {
    if (call.dk || call.dv)
      launch(context, plain_keys_kernel<T>, grid_of(call, key_tiles * columns), kPlainThreads, 0, call, delta,
             key_tiles, columns, length_refusers(context, call));
    if (call.dq)
      launch(context, plain_queries_kernel<T>, grid_of(call, query_tiles * columns), kPlainThreads, 0, call, delta,
             query_tiles, columns, length_refusers(context, call));
  });
}

}  // namespace permafrost::cuda
