#pragma once
#include <immintrin.h>

#include <cstdint>

// Sixteen lanes at a time. To be included by sources named *_avx512.cc or *_amx.cc alone: such sources include nothing
// that defines inline functions shared with the rest of the program, lest the linker keep a copy that needs AVX-512.
namespace permafrost::avx512 {

/// Mask of the lanes below n; all sixteen from n = 16 up, none from 0 down.
inline __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? __mmask16{0xffff} : n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << n) - 1u);
}

inline __m512 set1(float x) { return _mm512_set1_ps(x); }
/// a b + c, one rounding.
inline __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
inline __m512 abs(__m512 x) { return _mm512_abs_ps(x); }
// The processor's min and max give their second argument when one is NaN: x stands there, so that NaN stays NaN.
inline __m512 at_least(float low, __m512 x) { return _mm512_max_ps(set1(low), x); }
inline __m512 at_most(float high, __m512 x) { return _mm512_min_ps(set1(high), x); }

/// |x| with the sign of `sign`.
inline __m512 with_sign_of(__m512 sign, __m512 x) { return _mm512_or_ps(x, _mm512_and_ps(sign, set1(-0.0f))); }

/// e^x for x <= 0 (or NaN): as `exp`, without the guard at the top.
inline __m512 exp_not_positive(__m512 x) {
  x = at_least(-105.0f, x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, set1(1.44269504089f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // r = x - n ln 2, |r| <= 0.35; ln 2 in two parts, of which n times the first is exact.
  const __m512 r = _mm512_fnmadd_ps(n, set1(-2.12194440e-4f), _mm512_fnmadd_ps(n, set1(0.693359375f), x));
  // e^r = 1 + r + r^2 p(r): near-minimax (Chebyshev) fit of p, error 7e-8 of p, 9e-9 of e^r.
  __m512 p = set1(0.001392692677f);
  p = fma(p, r, set1(0.008363774046f));
  p = fma(p, r, set1(0.0416665487f));
  p = fma(p, r, set1(0.1666657329f));
  p = fma(p, r, set1(0.5f));
  const __m512 e = fma(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, set1(1.0f)));
  return _mm512_scalef_ps(e, n);
}

/// e^x; inf above 88.72, 0 below -103.97, denormals between.
inline __m512 exp(__m512 x) { return exp_not_positive(at_most(90.0f, x)); }

/// The upper tail of the normal distribution without its exponential: Q(u) = e^(-u^2/2) h(u), 0 <= u <= 15, relative
/// error of the fit 3e-8. h(u) = w p(w) with w = 1/(1 + u/4), p a Chebyshev fit.
inline __m512 normal_tail_factor(__m512 u) {
  const __m512 w = _mm512_div_ps(set1(1.0f), fma(u, set1(0.25f), set1(1.0f)));
  __m512 p = set1(0.01607147418f);
  p = fma(p, w, set1(-0.06022585183f));
  p = fma(p, w, set1(0.04611993581f));
  p = fma(p, w, set1(0.03507515416f));
  p = fma(p, w, set1(0.007866203785f));
  p = fma(p, w, set1(0.08885935694f));
  p = fma(p, w, set1(0.07138857245f));
  p = fma(p, w, set1(0.09561157227f));
  p = fma(p, w, set1(0.0994855687f));
  p = fma(p, w, set1(0.0997480154f));
  return _mm512_mul_ps(w, p);
}

/// e^(-u^2/2), with the rounding error of u^2 put back: relative accuracy holds far out. 0 <= u.
inline __m512 gauss(__m512 u) {
  u = at_most(40.0f, u);  // e^-800 is 0; beyond, u^2 could overflow
  const __m512 square = _mm512_mul_ps(u, u);
  const __m512 lost = _mm512_fmsub_ps(u, u, square);
  const __m512 e = exp_not_positive(_mm512_mul_ps(square, set1(-0.5f)));
  return _mm512_fnmadd_ps(_mm512_mul_ps(lost, set1(0.5f)), e, e);
}

inline __m512 erf(__m512 x) {
  const __m512 t = abs(x);
  // |x| <= 1: x + x p(x^2).
  const __m512 z = _mm512_mul_ps(x, x);
  __m512 p = set1(7.875874871e-5f);
  p = fma(p, z, set1(-0.0008016864303f));
  p = fma(p, z, set1(0.005189087242f));
  p = fma(p, z, set1(-0.02685421146f));
  p = fma(p, z, set1(0.1128359437f));
  p = fma(p, z, set1(-0.3761262596f));
  p = fma(p, z, set1(0.1283791661f));
  const __m512 small = fma(p, x, x);
  // Beyond: 1 - 2 Q(t sqrt 2).
  const __m512 u = _mm512_mul_ps(t, set1(1.41421356237f));
  const __m512 tail = _mm512_mul_ps(gauss(u), normal_tail_factor(u));
  const __m512 large = with_sign_of(x, _mm512_fnmadd_ps(set1(2.0f), tail, set1(1.0f)));
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(t, set1(1.0f), _CMP_GT_OQ), small, large);
}

inline __m512 tanh(__m512 x) {
  const __m512 t = abs(x);
  // |x| <= 0.65: x + x^3 p(x^2).
  const __m512 z = _mm512_mul_ps(t, t);
  __m512 p = set1(-0.00592372613f);
  p = fma(p, z, set1(0.02087346092f));
  p = fma(p, z, set1(-0.05382375792f));
  p = fma(p, z, set1(0.1333258301f));
  p = fma(p, z, set1(-0.3333332837f));
  const __m512 small = fma(_mm512_mul_ps(p, z), t, t);
  // Beyond: 1 - 2 / (e^2t + 1).
  const __m512 e = exp(_mm512_add_ps(t, t));
  const __m512 large = _mm512_sub_ps(set1(1.0f), _mm512_div_ps(set1(2.0f), _mm512_add_ps(e, set1(1.0f))));
  return with_sign_of(x, _mm512_mask_blend_ps(_mm512_cmp_ps_mask(t, set1(0.65f), _CMP_GT_OQ), small, large));
}

/// 1 / (1 + e^-x).
inline __m512 sigmoid(__m512 x) {
  const __m512 e = exp(_mm512_sub_ps(_mm512_setzero_ps(), x));
  return _mm512_div_ps(set1(1.0f), _mm512_add_ps(set1(1.0f), e));
}

/// f32 -> bf16, to nearest even; NaN stays NaN, denormals stay (unlike vcvtneps2bf16).
inline __m256i to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x00400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}

inline __m512 from_bf16(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

/// Memory of one dtype seen as f32 lanes; masked-off lanes are not touched (load: 0).
struct F32Lanes {
  using Stored = float;
  static __m512 load(const float* p) { return _mm512_loadu_ps(p); }
  static __m512 load(const float* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
  static void store(float* p, __m512 x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, __m512 x, __mmask16 m) { _mm512_mask_storeu_ps(p, m, x); }
};

struct Bf16Lanes {
  using Stored = uint16_t;
  static __m512 load(const uint16_t* p) { return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static __m512 load(const uint16_t* p, __mmask16 m) { return from_bf16(_mm256_maskz_loadu_epi16(m, p)); }
  static void store(uint16_t* p, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(x)); }
  static void store(uint16_t* p, __m512 x, __mmask16 m) { _mm256_mask_storeu_epi16(p, m, to_bf16(x)); }
};

}  // namespace permafrost::avx512
