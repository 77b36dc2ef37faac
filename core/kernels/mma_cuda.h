#pragma once
#include <cstdint>
#include <cstring>

#include "core/device/cuda_launch.h"
#include "core/tensor/dtype.h"
#ifndef PERMAFROST_CUDA_EMULATED
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

// The tensor cores' product of small matrices of bf16 or f16 (T), as the PTX manual describes it (mma.m16n8k16,
// ldmatrix), and copies that go on while a block computes (cp.async). For *_cuda.cu alone; whole warps call these
// functions together.
//
// Lane 4 g + t holds, of c (16 x 8): (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). Of a (16 x 16), in pairs along
// its columns: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8). Of b (16 x 8), in pairs along its rows: (2t, g),
// (2t + 8, g).
namespace permafrost::cuda {

/// Two numbers rounded to T, the first in the low half. What f16 cannot hold becomes infinite.
template <typename T>
__device__ inline uint32_t pack(float low, float high) {
#ifdef PERMAFROST_CUDA_EMULATED
  return static_cast<uint32_t>(T(low).bits) | static_cast<uint32_t>(T(high).bits) << 16;
#else
  uint32_t word;
  if constexpr (__is_same(T, bfloat16)) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    memcpy(&word, &pair, 4);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    memcpy(&word, &pair, 4);
  }
  return word;
#endif
}

/// c += a b, in f32. The tensor cores add the 16 products of a sum in an order and with a rounding of their own.
template <typename T>
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef PERMAFROST_CUDA_EMULATED
  struct Lane {
    float* c;
    const uint32_t* a;
    uint32_t b[2];
  };
  const auto put = [](uint32_t pair, float& low, float& high) {
    T number;
    number.bits = static_cast<uint16_t>(pair), low = static_cast<float>(number);
    number.bits = static_cast<uint16_t>(pair >> 16), high = static_cast<float>(number);
  };
  cuda_emulation::together(Lane{c, a, {b0, b1}}, [&](const auto& lanes) {
    float all_a[16][16], all_b[16][8], all_c[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const Lane& of = lanes(lane);
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 4; ++i) {
        float* to = &all_a[group + i % 2 * 8][pair + i / 2 * 8];
        put(of.a[i], to[0], to[1]);
        all_c[group + i / 2 * 8][pair + i % 2] = of.c[i];
      }
      for (int i = 0; i < 2; ++i) put(of.b[i], all_b[pair + i * 8][group], all_b[pair + i * 8 + 1][group]);
    }
    cuda_emulation::multiply_add(all_a, all_b, all_c);
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) lanes(lane).c[i] = all_c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  });
#else
  if constexpr (__is_same(T, bfloat16))
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/// Four matrices (8 x 8) from shared memory; lane 8 m + r says where row r of matrix m begins, at a multiple of 16
/// bytes. Lane 4 g + t gets (g, 2t) and (g, 2t + 1) of each; of its transpose where `transposed`.
template <bool transposed, typename T>
__device__ inline void load_matrices(uint32_t (&to)[4], const T* row) {
#ifdef PERMAFROST_CUDA_EMULATED
  struct Lane {
    uint32_t* to;
    const T* row;
  };
  cuda_emulation::together(Lane{to, row}, [](const auto& lanes) {
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4, t = lane % 4;
      for (int m = 0; m < 4; ++m) {
        const T low = transposed ? lanes(8 * m + 2 * t).row[group] : lanes(8 * m + group).row[2 * t];
        const T high = transposed ? lanes(8 * m + 2 * t + 1).row[group] : lanes(8 * m + group).row[2 * t + 1];
        lanes(lane).to[m] = static_cast<uint32_t>(low.bits) | static_cast<uint32_t>(high.bits) << 16;
      }
    }
  });
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
#endif
}

/// Starts to copy 16 bytes from global to shared memory, both at multiples of 16; zeros, and nothing is read, unless
/// `inside`. They are there for the thread that called after its await_copies, for its block after a barrier behind.
__device__ inline void copy_async(void* to_shared, const void* from, bool inside) {
#ifdef PERMAFROST_CUDA_EMULATED
  inside ? memcpy(to_shared, from, 16) : memset(to_shared, 0, 16);
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to_shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(__cvta_generic_to_global(from)),
               "r"(inside ? 16 : 0)
               : "memory");
#endif
}

/// Waits for all copies that this thread has started.
__device__ inline void await_copies() {
#ifndef PERMAFROST_CUDA_EMULATED
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

}  // namespace permafrost::cuda
