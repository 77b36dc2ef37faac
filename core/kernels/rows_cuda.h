#pragma once
#include <type_traits>

#include "core/kernels/elements_cuda.h"

// Kernels in which a warp or a block takes a row of a matrix, and a thread eight numbers of it at once. Which thread
// takes which depends on the length of a row alone, so that no sum depends on where a row lies. For *_cuda.cu alone.
namespace permafrost::cuda {

constexpr int kChunk = 8;
/// Rows of up to this length get a warp each, longer ones a block.
constexpr int64_t kWarpWidth = 1024;
constexpr unsigned kWarpRows = 4, kMostRowThreads = 512;

inline dim3 row_threads(int64_t width) {
  if (width <= kWarpWidth) return {32, kWarpRows};
  const int64_t warps = (width + 2 * kChunk * 32 - 1) / (2 * kChunk * 32);  // two chunks for each thread
  return {32 * static_cast<unsigned>(warps < kMostRowThreads / 32 ? warps : kMostRowThreads / 32)};
}

inline dim3 row_blocks(int64_t rows, dim3 threads) {
  const int64_t blocks = (rows + threads.y - 1) / threads.y, most = 1 << 20;
  return {static_cast<unsigned>(blocks < most ? blocks : most)};
}

/// For kernels whose blocks take row after row: as many blocks as processors hold at once, `warps` warps in each.
inline dim3 row_blocks_at_once(const Context& context, int64_t rows, dim3 threads, int64_t warps) {
  const int64_t of_block = threads.x * threads.y / 32, each = warps > of_block ? warps / of_block : 1;
  const int64_t blocks = (rows + threads.y - 1) / threads.y, most = each * queue_of(context).processors;
  return {static_cast<unsigned>(blocks < most ? blocks : most)};
}

/// body(row) for every row that falls to this thread's warp or block.
template <typename Body>
__device__ inline void each_row(int64_t rows, Body body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; row < rows; row += step) body(row);
}

/// body(chunk) for every chunk of a row that falls to this thread.
template <typename Body>
__device__ inline void each_chunk(int64_t width, Body body) {
  const int64_t chunks = (width + kChunk - 1) / kChunk;
  for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) body(chunk);
}

/// What a thread has of a row, for several passes: its first K chunks from registers, the others read again, mostly
/// from a cache. load(chunk) gives Values; body(chunk, Values). others: false where rows have no more than that.
template <int K, typename Values, typename Load>
__device__ inline void keep_chunks(int64_t width, Values (&kept)[K], Load load) {
  const int64_t chunks = (width + kChunk - 1) / kChunk;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t chunk = threadIdx.x + static_cast<int64_t>(k) * blockDim.x;
    if (chunk < chunks) kept[k] = load(chunk);
  }
}

template <bool others, int K, typename Values, typename Load, typename Body>
__device__ inline void each_kept_chunk(int64_t width, const Values (&kept)[K], Load load, Body body) {
  const int64_t chunks = (width + kChunk - 1) / kChunk;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t chunk = threadIdx.x + static_cast<int64_t>(k) * blockDim.x;
    if (chunk < chunks) body(chunk, kept[k]);
  }
  if constexpr (others) {
    for (int64_t chunk = threadIdx.x + static_cast<int64_t>(K) * blockDim.x; chunk < chunks; chunk += blockDim.x)
      body(chunk, load(chunk));
  }
}

// wide: the row starts at a multiple of 16 bytes, and its length is one of kChunk.

template <bool wide>
__device__ inline bool in_row(int64_t chunk, int place, int64_t width) {
  return wide || chunk * kChunk + place < width;
}

/// `beyond`: what stands behind the end of the row.
template <bool wide, typename T>
__device__ inline Floats<kChunk> load_chunk(const T* row, int64_t chunk, int64_t width, float beyond = 0.0f) {
  const T* from = row + chunk * kChunk;
  if constexpr (wide) {
    return load<kChunk>(from);
  } else {
    Floats<kChunk> out;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) out.v[i] = in_row<wide>(chunk, i, width) ? to_float(from[i]) : beyond;
    return out;
  }
}

/// A chunk as it is stored, in half the registers where T is short. Behind the end of a row: zeros.
template <typename T>
struct Stored {
  uint4 words[kChunk * sizeof(T) / 16];
};

template <bool wide, typename T>
__device__ inline Stored<T> load_stored(const T* row, int64_t chunk, int64_t width) {
  Stored<T> out;
  const T* from = row + chunk * kChunk;
  if constexpr (wide) {
#pragma unroll
    for (size_t i = 0; i < sizeof(out) / 16; ++i) out.words[i] = reinterpret_cast<const uint4*>(from)[i];
  } else {
    T values[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) values[i] = in_row<wide>(chunk, i, width) ? from[i] : from_float<T>(0.0f);
    memcpy(&out, values, sizeof(out));
  }
  return out;
}

template <typename T>
__device__ inline Floats<kChunk> to_floats(const Stored<T>& stored) {
  T values[kChunk];
  memcpy(static_cast<void*>(values), &stored, sizeof(stored));
  Floats<kChunk> out;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) out.v[i] = to_float(values[i]);
  return out;
}

template <bool wide, typename T>
__device__ inline void store_stored(const Stored<T>& values, T* row, int64_t chunk, int64_t width) {
  T* to = row + chunk * kChunk;
  if constexpr (wide) {
#pragma unroll
    for (size_t i = 0; i < sizeof(values) / 16; ++i) reinterpret_cast<uint4*>(to)[i] = values.words[i];
  } else {
    T numbers[kChunk];
    memcpy(static_cast<void*>(numbers), &values, sizeof(values));
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
      if (in_row<wide>(chunk, i, width)) to[i] = numbers[i];
  }
}

/// In f32, rounded once.
template <typename T>
__device__ inline Stored<T> sum_of(const Stored<T>& a, const Stored<T>& b) {
  const Floats<kChunk> x = to_floats(a), y = to_floats(b);
  T sums[kChunk];
#pragma unroll
  for (int i = 0; i < kChunk; ++i) sums[i] = from_float<T>(x.v[i] + y.v[i]);
  Stored<T> out;
  memcpy(&out, sums, sizeof(out));
  return out;
}

template <bool wide, typename T>
__device__ inline void store_chunk(const Floats<kChunk>& values, T* row, int64_t chunk, int64_t width) {
  T* to = row + chunk * kChunk;
  if constexpr (wide) {
    store(values, to);
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
      if (in_row<wide>(chunk, i, width)) to[i] = from_float<T>(values.v[i]);
  }
}

__device__ inline float chunk_sum(const Floats<kChunk>& x) {
  return ((x.v[0] + x.v[1]) + (x.v[2] + x.v[3])) + ((x.v[4] + x.v[5]) + (x.v[6] + x.v[7]));
}

/// Sum over the threads of a row, the same for all of them. `scratch`: shared, 32 numbers; free again afterwards.
__device__ inline float row_sum(float value, float* scratch) {
  return blockDim.x == 32 ? warp_sum(value) : block_sum(value, scratch);
}

/// Calls body with std::true_type or std::false_type.
template <typename Body>
void with_flag(bool flag, Body&& body) {
  if (flag)
    body(std::true_type{});
  else
    body(std::false_type{});
}

}  // namespace permafrost::cuda
