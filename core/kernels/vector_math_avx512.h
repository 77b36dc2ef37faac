#pragma once
#include <immintrin.h>

#include <cstdint>

// Sixteen lanes at a time. To be included by sources named *_avx512.cc or *_amx.cc alone: such sources include nothing
// that defines inline functions shared with the rest of the program, lest the linker keep a copy that needs AVX-512.
namespace permafrost::avx512 {

/// These functions are a dozen instructions on values in registers: a call would cost as much.
#define PERMAFROST_LANES [[gnu::always_inline]] inline

/// Mask of the lanes below n: all sixteen from n = 16 up, none from 0 down.
PERMAFROST_LANES __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? __mmask16{0xffff} : n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << n) - 1u);
}

PERMAFROST_LANES __m512 set1(float x) { return _mm512_set1_ps(x); }
/// a b + c, one rounding.
PERMAFROST_LANES __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
PERMAFROST_LANES __m512 abs(__m512 x) { return _mm512_abs_ps(x); }
// The processor's min and max give their second argument when one is NaN: x stands there, so that NaN stays NaN.
PERMAFROST_LANES __m512 at_least(float low, __m512 x) { return _mm512_max_ps(set1(low), x); }
PERMAFROST_LANES __m512 at_most(float high, __m512 x) { return _mm512_min_ps(set1(high), x); }

/// |x| with the sign of `sign`.
PERMAFROST_LANES __m512 with_sign_of(__m512 sign, __m512 x) {
  return _mm512_or_ps(x, _mm512_and_ps(sign, set1(-0.0f)));
}

PERMAFROST_LANES __m512 round_to_integer(__m512 x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/// 1/x for normal positive x below 2^126, within 2 units in the last place: an estimate of 14 bits and one Newton step.
PERMAFROST_LANES __m512 reciprocal(__m512 x) {
  const __m512 estimate = _mm512_rcp14_ps(x);
  return fma(estimate, _mm512_fnmadd_ps(x, estimate, set1(1.0f)), estimate);
}

/// c[0] + c[1] x + c[2] x^2 + ..., in pairs of pairs (Estrin): half as long a chain of dependent steps as Horner's.
template <int kTerms>
PERMAFROST_LANES __m512 polynomial(__m512 x, const float (&c)[kTerms]) {
  int terms = (kTerms + 1) / 2;
  __m512 sum[(kTerms + 1) / 2];
  for (int i = 0; i < terms; ++i)
    sum[i] = 2 * i + 1 < kTerms ? fma(set1(c[2 * i + 1]), x, set1(c[2 * i])) : set1(c[2 * i]);
  for (; terms > 1; terms = (terms + 1) / 2) {
    x = _mm512_mul_ps(x, x);
    for (int i = 0; i < terms / 2; ++i) sum[i] = fma(sum[2 * i + 1], x, sum[2 * i]);
    if (terms % 2 == 1) sum[terms / 2] = sum[terms - 1];
  }
  return sum[0];
}

/// The same by Horner's rule: fewer instructions, for loops that have other vectors to work on meanwhile.
template <int kTerms>
PERMAFROST_LANES __m512 horner(__m512 x, const float (&c)[kTerms]) {
  __m512 sum = set1(c[kTerms - 1]);
  for (int i = kTerms - 2; i >= 0; --i) sum = fma(sum, x, set1(c[i]));
  return sum;
}

/// e^x for x <= 0 (or NaN): as `exp`, without the guard at the top.
PERMAFROST_LANES __m512 exp_not_positive(__m512 x) {
  x = at_least(-105.0f, x);
  const __m512 n = round_to_integer(_mm512_mul_ps(x, set1(1.44269504089f)));
  // r = x - n ln 2, |r| <= 0.35; ln 2 in two parts, of which n times the first is exact.
  const __m512 r = _mm512_fnmadd_ps(n, set1(-2.12194440e-4f), _mm512_fnmadd_ps(n, set1(0.693359375f), x));
  // e^r = 1 + r + r^2 p(r): near-minimax (Chebyshev) fit of p, error 7e-8 of p, 9e-9 of e^r.
  const __m512 p = polynomial(r, {0.5f, 0.1666657329f, 0.0416665487f, 0.008363774046f, 0.001392692677f});
  const __m512 e = fma(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, set1(1.0f)));
  return _mm512_scalef_ps(e, n);
}

/// e^x; inf above 88.72, 0 below -103.97, denormals between.
PERMAFROST_LANES __m512 exp(__m512 x) { return exp_not_positive(at_most(90.0f, x)); }

/// 2^x, within 2 units in the last place of the exact function of the given x. Any x but -inf (which gives NaN).
PERMAFROST_LANES __m512 exp2_finite(__m512 x) {
  const __m512 n = round_to_integer(x);
  const __m512 f = _mm512_sub_ps(x, n);  // exact, |f| <= 1/2
  // 2^f = 1 + f p(f), Chebyshev fit, error 4e-9.
  const __m512 p =
      polynomial(f, {0.6931471825f, 0.2402265072f, 0.05550356954f, 0.009618083015f, 0.001339086331f, 0.0001545316336f});
  return _mm512_scalef_ps(fma(p, f, set1(1.0f)), n);
}

/// The upper tail of the normal distribution, Q(u) = erfc(u / sqrt 2) / 2, for u >= 0 (or NaN), as 2^(-1 + u p(u)).
/// p is a Chebyshev fit on [0, 7.5], where Q's relative error is that of rounding its logarithm, (2 + 2 u^2) 2^-23 at
/// most. Beyond (Q < 4e-14), Q falls to 0 a little faster than it should.
PERMAFROST_LANES __m512 normal_tail(__m512 u) {
  u = at_most(40.0f, u);
  const __m512 p = polynomial(
      u, {-1.151104093f, -0.4592235982f, -0.05242330953f, 0.006898916326f, 6.59298239e-5f, -0.0003314562491f,
          0.0001010404521f, -1.818435157e-5f, 2.160154963e-6f, -1.663216693e-7f, 7.533532909e-9f, -1.524241289e-10f});
  return exp2_finite(fma(p, u, set1(-1.0f)));
}

/// 2^x and Q(u) to 2^-11 of their value: for results that are stored in bf16, whose own rounding is 2^-9.
PERMAFROST_LANES __m512 exp2_for_bf16(__m512 x) {
  const __m512 n = round_to_integer(x);
  const __m512 f = _mm512_sub_ps(x, n);
  const __m512 p = horner(f, {0.6932829618f, 0.2422109693f, 0.05500890315f});  // minimax fit, error 1.0e-4 of 2^f
  return _mm512_scalef_ps(fma(p, f, set1(1.0f)), n);
}
/// As normal_tail; minimax fit on [0, 8], error 2.5e-4 of Q. Beyond (Q < 1e-15), Q falls to 0 more slowly than it
/// should.
PERMAFROST_LANES __m512 normal_tail_for_bf16(__m512 u) {
  const __m512 p = horner(at_most(8.0f, u), {-1.148250342f, -0.4660353065f, -0.04756700620f, 0.006018821616f,
                                             -0.0004390793911f, 1.36866827e-5f});
  return exp2_for_bf16(fma(p, at_most(40.0f, u), set1(-1.0f)));
}

PERMAFROST_LANES __m512 erf(__m512 x) {
  const __m512 t = abs(x);
  // |x| <= 1: x + x p(x^2).
  const __m512 z = _mm512_mul_ps(x, x);
  const __m512 p = polynomial(z, {0.1283791661f, -0.3761262596f, 0.1128359437f, -0.02685421146f, 0.005189087242f,
                                  -0.0008016864303f, 7.875874871e-5f});
  const __m512 small = fma(p, x, x);
  // Beyond: 1 - 2 Q(t sqrt 2).
  const __m512 tail = normal_tail(_mm512_mul_ps(t, set1(1.41421356237f)));
  const __m512 large = with_sign_of(x, _mm512_fnmadd_ps(set1(2.0f), tail, set1(1.0f)));
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(t, set1(1.0f), _CMP_GT_OQ), small, large);
}

PERMAFROST_LANES __m512 tanh(__m512 x) {
  const __m512 t = abs(x);
  // |x| <= 0.65: x + x^3 p(x^2).
  const __m512 z = _mm512_mul_ps(t, t);
  const __m512 p = polynomial(z, {-0.3333332837f, 0.1333258301f, -0.05382375792f, 0.02087346092f, -0.00592372613f});
  const __m512 small = fma(_mm512_mul_ps(p, z), t, t);
  // Beyond: 1 - 2 / (e^2t + 1).
  const __m512 e = exp(at_most(20.0f, _mm512_add_ps(t, t)));
  const __m512 large = _mm512_fnmadd_ps(set1(2.0f), reciprocal(_mm512_add_ps(e, set1(1.0f))), set1(1.0f));
  return with_sign_of(x, _mm512_mask_blend_ps(_mm512_cmp_ps_mask(t, set1(0.65f), _CMP_GT_OQ), small, large));
}

/// e^x for x <= 0 (or NaN) that stems from bf16 and so is known to 2^-9 of its value: relative error 3e-6 + 2e-8 |x|.
PERMAFROST_LANES __m512 exp_of_bf16(__m512 x) {
  x = at_least(-105.0f, x);
  // Adding 1.5 x 2^23 rounds to an integer.
  const __m512 magic = set1(12582912.0f);
  const __m512 n = _mm512_sub_ps(fma(x, set1(1.44269504089f), magic), magic);
  const __m512 f = _mm512_fmsub_ps(x, set1(1.44269504089f), n);
  // 2^f = 1 + f p(f), minimax fit, error 2.8e-6 of 2^f.
  const __m512 p = horner(f, {0.6931240752f, 0.2402409911f, 0.05590642989f, 0.009582851082f});
  return _mm512_scalef_ps(fma(p, f, set1(1.0f)), n);
}

/// As tanh, to 1e-4 of its value; beyond 4.6, where it is 1 - 2e-4, it stays there: bf16 rounds that to 1.
PERMAFROST_LANES __m512 tanh_for_bf16(__m512 x) {
  x = at_least(-4.6f, at_most(4.6f, x));
  const __m512 z = _mm512_mul_ps(x, x);
  // tanh x = x p(z) / q(z), minimax fit, error 3.2e-5.
  const __m512 p = fma(fma(set1(0.0007095841575f), z, set1(0.1036247090f)), z, set1(0.9999679327f));
  const __m512 q = fma(fma(set1(0.01319705602f), z, set1(0.4367471337f)), z, set1(1.0f));
  return _mm512_mul_ps(_mm512_mul_ps(x, p), _mm512_rcp14_ps(q));
}

/// As sigmoid, to 2^-11.
PERMAFROST_LANES __m512 sigmoid_for_bf16(__m512 x) {
  const __m512 e = exp2_for_bf16(_mm512_mul_ps(at_least(-87.0f, at_most(1e9f, x)), set1(-1.44269504089f)));
  return _mm512_rcp14_ps(_mm512_add_ps(set1(1.0f), e));
}

/// 1 / (1 + e^-x); 6e-39 instead of less below -87.
PERMAFROST_LANES __m512 sigmoid(__m512 x) {
  const __m512 e = exp2_finite(_mm512_mul_ps(at_least(-87.0f, at_most(1e9f, x)), set1(-1.44269504089f)));
  return reciprocal(_mm512_add_ps(set1(1.0f), e));
}

/// f32 -> bf16, to nearest even; NaN stays NaN, denormals stay (unlike vcvtneps2bf16).
PERMAFROST_LANES __m256i to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  __m512i rounded = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  rounded = _mm512_mask_sub_epi32(rounded, odd, rounded, _mm512_set1_epi32(-1));
  rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x00400000));
  // The high half of every word: one shuffle, where a shift and a narrowing move would be three.
  const __m512i high_halves = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0x1f001d, 0x1b0019, 0x170015, 0x130011, 0xf000d,
                                               0xb0009, 0x70005, 0x30001);
  return _mm512_castsi512_si256(_mm512_permutexvar_epi16(high_halves, rounded));
}

PERMAFROST_LANES __m512 from_bf16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

/// Calls body(i, mask) for the vectors of `width` elements; the mask of all but the last is a constant after inlining.
template <typename Body>
PERMAFROST_LANES void for_vectors(int64_t width, Body body) {
  int64_t i = 0;
  for (; i + 16 <= width; i += 16) body(i, __mmask16{0xffff});
  if (i < width) body(i, first_lanes(width - i));
}

/// Memory of one dtype seen as f32 lanes; masked-off lanes are not touched (load: 0).
struct F32Lanes {
  using Stored = float;
  PERMAFROST_LANES static __m512 load(const float* p) { return _mm512_loadu_ps(p); }
  PERMAFROST_LANES static __m512 load(const float* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
  PERMAFROST_LANES static void store(float* p, __m512 x) { _mm512_storeu_ps(p, x); }
  PERMAFROST_LANES static void store(float* p, __m512 x, __mmask16 m) { _mm512_mask_storeu_ps(p, m, x); }
};

/// The lanes of even and of odd place of 32 numbers in bf16, each in one instruction: for loops that do not mind order.
PERMAFROST_LANES __m512 even_bf16(__m512i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
PERMAFROST_LANES __m512 odd_bf16(__m512i x) {
  return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

struct Bf16Lanes {
  using Stored = uint16_t;
  PERMAFROST_LANES static __m512 load(const uint16_t* p) {
    return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  PERMAFROST_LANES static __m512 load(const uint16_t* p, __mmask16 m) {
    return from_bf16(_mm256_maskz_loadu_epi16(m, p));
  }
  PERMAFROST_LANES static void store(uint16_t* p, __m512 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(x));
  }
  PERMAFROST_LANES static void store(uint16_t* p, __m512 x, __mmask16 m) { _mm256_mask_storeu_epi16(p, m, to_bf16(x)); }
};

}  // namespace permafrost::avx512
