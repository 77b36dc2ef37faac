#pragma once
#include <cstdint>

#include "core/tensor/dtype.h"

// Conversions between storage dtypes and float as branch-free integer arithmetic, so that plain loops over them
// vectorise on every instruction set. For the *_loops.h files, which are compiled once per instruction set: everything
// is static and always inlined, or the linker could pick a copy that this processor cannot run.
namespace permafrost {
namespace {

#define PERMAFROST_INLINE [[maybe_unused]] inline __attribute__((always_inline))

PERMAFROST_INLINE float load(const float* p) { return *p; }

PERMAFROST_INLINE float load(const bfloat16* p) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(p->bits) << 16);
}

PERMAFROST_INLINE float load(const float16* p) {
  const uint32_t half = p->bits;
  const uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  // Exponent and mantissa at their places in a float; the product with 2^112 corrects the bias and is exact for
  // subnormals too. Infinity and NaN keep the full exponent.
  const float finite = __builtin_bit_cast(float, magnitude << 13) * 0x1p112f;
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  const uint32_t bits = magnitude >= 0x7c00u ? special : __builtin_bit_cast(uint32_t, finite);
  return __builtin_bit_cast(float, bits | sign);
}

PERMAFROST_INLINE void store(float value, float* p) { *p = value; }

PERMAFROST_INLINE void store(float value, bfloat16* p) {
  const uint32_t u = __builtin_bit_cast(uint32_t, value);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const uint32_t quiet = (u >> 16) | 0x0040u;
  p->bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

PERMAFROST_INLINE void store(float value, float16* p) {
  const uint32_t u = __builtin_bit_cast(uint32_t, value);
  const uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  // Subnormal: adding 0.5 aligns the last place and the hardware rounds to nearest even.
  const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
  const uint32_t subnormal = __builtin_bit_cast(uint32_t, shifted) - 0x3f000000u;
  const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  uint32_t half = magnitude >= 0x38800000u ? normal : subnormal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;  // rounds to 65536 or more
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  p->bits = static_cast<uint16_t>(half | sign);
}

}  // namespace
}  // namespace permafrost
