#pragma once
#include <cstdint>
#include <cstring>

#include "core/device/cuda_launch.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"
#ifndef PERMAFROST_CUDA_EMULATED
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

// What the kernels of the CUDA backend have in common: numbers as they are stored, sixteen bytes at a time, sums over
// a warp and a block in an order that is fixed. For *_cuda.cu alone.
namespace permafrost::cuda {

// Stored numbers to f32, exact, and back, to nearest even. NaN stays NaN.

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bfloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ inline float to_float(float16 x) {
#ifdef PERMAFROST_CUDA_EMULATED
  return static_cast<float>(x);
#else
  return __half2float(__ushort_as_half(x.bits));
#endif
}

template <typename T>
__device__ inline T from_float(float x) {
#ifdef PERMAFROST_CUDA_EMULATED
  return T(x);
#else
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    T stored;
    if constexpr (__is_same(T, bfloat16))
      stored.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
    else
      stored.bits = __half_as_ushort(__float2half_rn(x));
    return stored;
  }
#endif
}

// Within two units in the last place, in one instruction each; what is smaller than any normal number counts as 0.
__device__ inline float fast_exp2(float x) {
#ifdef PERMAFROST_CUDA_EMULATED
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
__device__ inline float fast_reciprocal(float x) {
#ifdef PERMAFROST_CUDA_EMULATED
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

/// W numbers in f32, from W that lie beside each other in memory.
template <int W>
struct Floats {
  float v[W];
};

/// Loads and stores of W > 1 numbers take 16 bytes each, and the address must be a multiple of 16.
template <int W, typename T>
__device__ inline Floats<W> load(const T* p) {
  Floats<W> out;
  if constexpr (W * sizeof(T) < 16) {
#pragma unroll
    for (int i = 0; i < W; ++i) out.v[i] = to_float(p[i]);
  } else {
    constexpr int kPer = 16 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int part = 0; part < W / kPer; ++part) {
      const uint4 raw = *reinterpret_cast<const uint4*>(p + part * kPer);
      T stored[kPer];
      memcpy(static_cast<void*>(stored), &raw, 16);
#pragma unroll
      for (int i = 0; i < kPer; ++i) out.v[part * kPer + i] = to_float(stored[i]);
    }
  }
  return out;
}

template <int W, typename T>
__device__ inline void store(const Floats<W>& values, T* p) {
  if constexpr (W * sizeof(T) < 16) {
#pragma unroll
    for (int i = 0; i < W; ++i) p[i] = from_float<T>(values.v[i]);
  } else {
    constexpr int kPer = 16 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int part = 0; part < W / kPer; ++part) {
      T stored[kPer];
#pragma unroll
      for (int i = 0; i < kPer; ++i) stored[i] = from_float<T>(values.v[part * kPer + i]);
      uint4 raw;
      memcpy(&raw, stored, 16);
      *reinterpret_cast<uint4*>(p + part * kPer) = raw;
    }
  }
}

/// p = values, or p += values.
template <int W, typename T>
__device__ inline void store_or_add(Floats<W> values, T* p, bool add) {
  if (add) {
    const Floats<W> old = load<W>(p);
#pragma unroll
    for (int i = 0; i < W; ++i) values.v[i] = old.v[i] + values.v[i];
  }
  store(values, p);
}

/// Elements that a thread of an elementwise kernel takes at once: 16 bytes of bf16, twice 16 of f32.
constexpr int kWide = 8;
constexpr unsigned kThreads = 256;

template <typename Element>
__global__ void each_kernel(Element element, int64_t n, bool wide) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t groups = wide ? n / kWide : 0;
  for (int64_t group = first; group < groups; group += threads) element.template operator()<kWide>(group * kWide);
  for (int64_t i = groups * kWide + first; i < n; i += threads) element.template operator()<1>(i);
}

/// element.operator()<W>(i) for elements [i, i + W), W = 8 or 1, that cover [0, n). wide: every pointer it goes through
/// is a multiple of 16 bytes at element 0.
template <typename Element>
void for_each(const Context& context, int64_t n, bool wide, const Element& element) {
  if (n <= 0) return;
  const int64_t work = wide ? n / kWide + n % kWide : n;
  const int64_t most = static_cast<int64_t>(queue_of(context).processors) * 16;  // enough to fill any device
  const int64_t blocks = (work + kThreads - 1) / kThreads;
  launch(context, each_kernel<Element>, static_cast<unsigned>(blocks < most ? blocks : most), kThreads, 0, element, n,
         wide);
}

/// True when all of them start at multiples of 16 bytes; undefined tensors do.
template <typename... Tensors>
bool aligned(const Tensors&... tensors) {
  return (... && (reinterpret_cast<uintptr_t>(tensors.raw()) % 16 == 0));
}

// Of a warp, or of each group of `Lanes` lanes beside each other: every lane gets the same sum (maximum), added in one
// order, a tree over lanes.

template <int Lanes = 32, typename T>
__device__ inline T warp_sum(T value) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

template <int Lanes = 32>
__device__ inline float warp_maximum(float value) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

/// Of all threads of a block of whole warps, the same for all. `scratch`: shared, 32 numbers; free again afterwards.
template <typename T>
__device__ inline T block_sum(T value, T* scratch) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  value = warp_sum(value);
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = warp_sum(lane < warps ? scratch[lane] : T(0));
  __syncthreads();
  return value;
}

/// Calls body with a null pointer of the C++ type of a storage dtype: f32, bf16 or f16.
template <typename Body>
void with_dtype(DType dtype, Body&& body) {
  if (dtype == DType::kF32) return body(static_cast<float*>(nullptr));
  if (dtype == DType::kBF16) return body(static_cast<bfloat16*>(nullptr));
  if (dtype == DType::kF16) return body(static_cast<float16*>(nullptr));
  fail(ErrorKind::kInternal, "cuda: no kernel for dtype ", to_string(dtype));
}

}  // namespace permafrost::cuda
