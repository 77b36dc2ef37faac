#pragma once
#include "core/kernels/vector_math_avx512.h"

// Pieces that the AVX-512 and the AMX version of attention share; same rule of inclusion as vector_math_avx512.h.
namespace permafrost::avx512 {

/// Transposes sixteen vectors of sixteen four-byte elements in place.
PERMAFROST_LANES void transpose_16x16(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // r[4 g + j], quarter q = column 4 q + j of rows 4 g .. 4 g + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512i low01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88), high01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
    const __m512i low23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
    const __m512i high23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    t[4 + j] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

/// Which of the keys s .. s + 15 a query sees: those below `visible` whose byte of `allowed` (may be null) is not 0.
PERMAFROST_LANES __mmask16 seen_keys(int64_t s, int64_t visible, const uint8_t* allowed) {
  const __mmask16 lanes = first_lanes(visible - s);
  if (!allowed) return lanes;
  const __m128i bytes = _mm_maskz_loadu_epi8(lanes, allowed + s);
  return _mm_test_epi8_mask(bytes, bytes);
}

/// log(x) for one normal number x > 0, or NaN, by the C library.
inline float log_scalar(float x) { return __builtin_logf(x); }

}  // namespace permafrost::avx512
