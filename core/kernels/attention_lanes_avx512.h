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
    const __m512i low01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88),
                  high01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
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

/// log(x) of normal x > 0, within 2 units in the last place of 1 + |log x|; NaN gives NaN.
PERMAFROST_LANES __m512 log_normal(__m512 x) {
  const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  const __mmask16 below = _mm512_cmp_ps_mask(m, set1(1.0f), _CMP_LT_OQ);  // then m is x 2^-n for n one higher
  const __m512 exponent = _mm512_getexp_ps(x);
  const __m512 n = _mm512_mask_add_ps(exponent, below, exponent, set1(1.0f));
  // log(1 + f) = f - f^2/2 + f^3 p(f), Chebyshev fit of p on [-1/4, 1/2], error 2e-8 of the logarithm.
  const __m512 f = _mm512_sub_ps(m, set1(1.0f)), square = _mm512_mul_ps(f, f);
  const __m512 p = polynomial(f, {0.3333334625f, -0.2500014305f, 0.1999687403f, -0.1664944887f, 0.1438231766f,
                                  -0.1306141466f, 0.1089631468f, -0.05147591606f});
  const __m512 small = fma(_mm512_mul_ps(square, f), p, fma(square, set1(-0.5f), f));
  return fma(n, set1(0.69314718056f), small);
}

}  // namespace permafrost::avx512
