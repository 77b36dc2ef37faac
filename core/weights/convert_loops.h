#pragma once
// Loops over short runs of values, compiled once for any processor (convert.cc) and once for AVX2 (convert_avx2.cc).
// Everything here has internal linkage on purpose: a function shared between the two object files could be linked
// with instructions that the processor lacks. Both give the same bits.
#include <bit>
#include <cstdint>

#include "core/tensor/dtype.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace permafrost {

/// Counters that the loops fill; `change_bits` is the largest relative change as bits of a float (not negative floats
/// are ordered like their bits, and integer maxima vectorise).
struct ConvertCounts {
  int32_t non_finite = 0;
  int32_t overflowed = 0;
  uint32_t change_bits = 0;
};

struct ConvertLoops {
  void (*f16_to_f32)(const uint16_t*, float*, int);
  void (*bf16_to_f32)(const uint16_t*, float*, int);
  void (*f32_to_f16)(const float*, uint16_t*, int);
  void (*f32_to_bf16)(const float*, uint16_t*, int);
  void (*count)(const float* before, const float* after, int, ConvertCounts&);
  void (*change)(const float* before, const float* after, int, ConvertCounts&);
};

namespace {

constexpr uint32_t kMagnitude = 0x7fffffffu, kInfinity = 0x7f800000u;

inline void bf16_to_f32(const uint16_t* in, float* out, int n) {
  for (int i = 0; i < n; ++i) out[i] = std::bit_cast<float>(static_cast<uint32_t>(in[i]) << 16);
}

inline void f32_to_bf16(const float* in, uint16_t* out, int n) {
  for (int i = 0; i < n; ++i) {
    const uint32_t u = std::bit_cast<uint32_t>(in[i]);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const uint32_t quiet = (u >> 16) | 0x0040u;
    out[i] = static_cast<uint16_t>((u & kMagnitude) > kInfinity ? quiet : rounded);
  }
}

inline void f16_to_f32(const uint16_t* in, float* out, int n) {
  int i = 0;
#ifdef __F16C__
  for (; i + 8 <= n; i += 8) {
    const __m256 values = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i)));
    if (_mm256_movemask_ps(_mm256_cmp_ps(values, values, _CMP_UNORD_Q)) != 0) break;  // NaN keeps its bits below
    _mm256_storeu_ps(out + i, values);
  }
#endif
  for (; i < n; ++i) {
    float16 value;
    value.bits = in[i];
    out[i] = static_cast<float>(value);
  }
}

inline void f32_to_f16(const float* in, uint16_t* out, int n) {
  int i = 0;
#ifdef __F16C__
  for (; i + 8 <= n; i += 8) {
    const __m256 values = _mm256_loadu_ps(in + i);
    if (_mm256_movemask_ps(_mm256_cmp_ps(values, values, _CMP_UNORD_Q)) != 0) break;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < n; ++i) out[i] = float16(in[i]).bits;
}

inline void count(const float* before, const float* after, int n, ConvertCounts& counts) {
  int32_t non_finite = 0, not_finite_after = 0;
  for (int i = 0; i < n; ++i) {
    non_finite += (std::bit_cast<uint32_t>(before[i]) & kMagnitude) >= kInfinity ? 1 : 0;
    not_finite_after += (std::bit_cast<uint32_t>(after[i]) & kMagnitude) >= kInfinity ? 1 : 0;
  }
  counts.non_finite += non_finite;
  counts.overflowed += not_finite_after - non_finite;
}

inline void change(const float* before, const float* after, int n, ConvertCounts& counts) {
  int32_t largest = 0;
  for (int i = 0; i < n; ++i) {
    const float difference = after[i] - before[i];
    const float ratio = difference / before[i];
    const uint32_t bits = std::bit_cast<uint32_t>(ratio) & kMagnitude;
    // 0/0 for unchanged zeros, inf and NaN for the values counted elsewhere: no change to speak of.
    const auto usable = static_cast<int32_t>(bits >= kInfinity ? 0u : bits);
    largest = usable > largest ? usable : largest;
  }
  counts.change_bits =
      static_cast<uint32_t>(largest) > counts.change_bits ? static_cast<uint32_t>(largest) : counts.change_bits;
}

constexpr ConvertLoops kConvertLoops{f16_to_f32, bf16_to_f32, f32_to_f16, f32_to_bf16, count, change};

}  // namespace

/// The same loops with AVX2 and F16C; call only where cpu_features().avx2.
const ConvertLoops& convert_loops_avx2();

}  // namespace permafrost
