#pragma once
#include "core/kernels/attention_view_cuda.h"
#include "core/kernels/mma_cuda.h"

// Tiles of bf16 or f16 (T) in shared memory, and products of them. A block has four warps; each has 16 of the 64 rows
// that the block owns, in the fragments of mma_cuda.h: a thread holds the rows g and g + 8 of its warp. Head sizes are
// padded with zeros to DP elements, a multiple of 16. For attention_*_tiles_cuda.cu alone.
namespace permafrost::cuda {

constexpr int kOwned = 64;  // rows of the tile that a block owns
constexpr int kTileThreads = 128;

/// Elements between rows of a tile: an odd number of 16-byte groups, so that the eight rows of a small matrix lie in
/// different banks.
template <int DP>
constexpr int kRow = DP + 8;

/// Which tensors can be read or written 16 bytes at a time.
struct Wide {
  bool q, k, v, out, dout, dq, dk, dv;
};

inline Wide wide_of(const AttentionCall& call) {
  const auto wide = [&](const void* memory, int64_t stride) {
    return reinterpret_cast<uintptr_t>(memory) % 16 == 0 && stride % 8 == 0 && call.head_size % 8 == 0;
  };
  const int64_t token = call.heads * call.head_size;
  return {wide(call.q, call.stride_q),  wide(call.k, call.stride_k), wide(call.v, call.stride_v),
          wide(call.out, token),        wide(call.dout, token),      wide(call.dq, call.stride_q),
          wide(call.dk, call.stride_k), wide(call.dv, call.stride_v)};
}

/// The rows of one head of a tensor: row i begins at first + i * stride and has `size` elements.
template <typename T>
struct Rows {
  const T* first;
  int64_t stride;
  int size;
  bool wide;
};

/// Starts to copy rows [begin, begin + count) into a tile; rows from `end` on, and columns behind the head's size, are
/// zeros and not read. By the whole block of so many threads. The tile is there after await_copies and a barrier.
template <int DP, int count, int threads = kTileThreads, typename T>
__device__ inline void load_tile(const Rows<T>& rows, int begin, int end, T* tile) {
  const int thread = static_cast<int>(threadIdx.x);
  if (rows.wide) {
    constexpr int kGroups = DP / 8;
#pragma unroll 4
    for (int i = thread; i < count * kGroups; i += threads) {
      const int row = i / kGroups, column = i % kGroups * 8;
      const bool inside = begin + row < end && column < rows.size;
      copy_async(tile + row * kRow<DP> + column,
                 rows.first + (inside ? (begin + row) * rows.stride + column : int64_t{0}), inside);
    }
  } else {
    for (int i = thread; i < count * DP; i += threads) {
      const int row = i / DP, column = i % DP;
      const bool inside = begin + row < end && column < rows.size;
      T value;
      value.bits = inside ? rows.first[(begin + row) * rows.stride + column].bits : uint16_t{0};
      tile[row * kRow<DP> + column] = value;
    }
  }
}

/// Where this lane's row begins for load_matrices: of a 16 x 16 operand `a`, and of two steps of 8 columns of an
/// operand b that is read transposed (rows of b are rows of the tile) ...
template <int DP>
__device__ inline int row_offset() {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return lane % 16 * kRow<DP> + lane / 16 * 8;
}
/// ... and of one whose columns are rows of the tile.
template <int DP>
__device__ inline int column_offset() {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return (lane / 16 * 8 + lane % 8) * kRow<DP> + lane / 8 % 2 * 8;
}

/// c = a b^T over DP elements: the warp's 16 rows of tile a, 8 * kSteps rows of tile b.
template <int DP, int kSteps, typename T>
__device__ inline void product_of_rows(const T* a, const T* b, float (&c)[kSteps][4]) {
#pragma unroll
  for (int j = 0; j < kSteps; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) c[j][i] = 0.0f;
  a += row_offset<DP>();
  b += column_offset<DP>();
#pragma unroll
  for (int k = 0; k < DP; k += 16) {
    uint32_t rows[4];
    load_matrices<false>(rows, a + k);
#pragma unroll
    for (int j = 0; j < kSteps; j += 2) {
      uint32_t columns[4];
      load_matrices<false>(columns, b + j * 8 * kRow<DP> + k);
      mma<T>(c[j], rows, columns[0], columns[1]);
      mma<T>(c[j + 1], rows, columns[2], columns[3]);
    }
  }
}

/// c (16 x DP) += p b, with p as product_of_rows gave it, rounded to T, and the rows of tile b.
template <int DP, int kSteps, typename T>
__device__ inline void add_product(const float (&p)[kSteps][4], const T* b, float (&c)[DP / 8][4]) {
  b += row_offset<DP>();
#pragma unroll
  for (int j = 0; j < kSteps; j += 2) {
    const uint32_t rows[4] = {pack<T>(p[j][0], p[j][1]), pack<T>(p[j][2], p[j][3]), pack<T>(p[j + 1][0], p[j + 1][1]),
                              pack<T>(p[j + 1][2], p[j + 1][3])};
#pragma unroll
    for (int d = 0; d < DP; d += 16) {
      uint32_t columns[4];
      load_matrices<true>(columns, b + j * 8 * kRow<DP> + d);
      mma<T>(c[d / 8], rows, columns[0], columns[1]);
      mma<T>(c[d / 8 + 1], rows, columns[2], columns[3]);
    }
  }
}

template <int kSteps>
__device__ inline void clear(float (&c)[kSteps][4]) {
#pragma unroll
  for (int j = 0; j < kSteps; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) c[j][i] = 0.0f;
}

/// Rounds the warp's 16 rows of c, times factor[0] (rows g) and factor[1] (rows g + 8), and writes those below `end`,
/// through the warp's rows of a tile that no other warp uses any more. `first`: the token of row 0.
template <int DP, typename T>
__device__ inline void store_rows(const float (&c)[DP / 8][4], const float (&factor)[2], T* tile, int first, int end,
                                  T* head, int64_t stride, int size, bool wide) {
  const int lane = static_cast<int>(threadIdx.x % 32), group = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < DP / 8; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<uint32_t*>(tile + (group + 8 * half) * kRow<DP> + 8 * j + 2 * t) =
          pack<T>(c[j][2 * half] * factor[half], c[j][2 * half + 1] * factor[half]);
  __syncwarp();
  constexpr int kGroups = DP / 8;
  for (int i = lane; i < 16 * kGroups; i += 32) {
    const int row = i / kGroups, column = i % kGroups * 8;
    if (first + row >= end || column >= size) continue;
    const T* from = tile + row * kRow<DP> + column;
    T* to = head + (first + row) * stride + column;
    if (wide)
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    else
      for (int e = 0; e < 8 && column + e < size; ++e) to[e] = from[e];
  }
}

/// Starts a kernel with more shared memory than the 48 KiB that any kernel may have.
template <unsigned threads = kTileThreads, typename... Parameters, typename... Arguments>
void launch_tiles(const Context& context, void (*kernel)(Parameters...), unsigned grid, int64_t elements,
                  Arguments&&... arguments) {
  const int64_t bytes = elements * 2;
  if (bytes > 48 * 1024)
    PERMAFROST_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  launch(context, kernel, grid, threads, bytes, std::forward<Arguments>(arguments)...);
}

/// Calls body.operator()<T>() with the type of a call that has tiles.
template <typename Body>
void with_tile_type(const AttentionCall& call, Body&& body) {
  call.dtype == DType::kBF16 ? body.template operator()<bfloat16>() : body.template operator()<float16>();
}

/// Calls body.operator()<DP>() with the padded head size. Widths of known models have one of their own.
template <typename Body>
void with_padded_size(int64_t head_size, Body&& body) {
  if (head_size <= 32) return body.template operator()<32>();
  if (head_size <= 64) return body.template operator()<64>();
  if (head_size <= 80) return body.template operator()<80>();
  if (head_size <= 96) return body.template operator()<96>();
  if (head_size <= 128) return body.template operator()<128>();
  return body.template operator()<256>();
}

}  // namespace permafrost::cuda
