#pragma once
#include "core/kernels/kernel_types.h"
#include "core/kernels/vector_math_avx512.h"

// Activations of sixteen lanes, for sources named *_avx512.cc or *_amx.cc alone (see vector_math_avx512.h).
namespace permafrost::avx512 {

constexpr float kQuickGelu = 1.702f;

/// f where x < 0, 1 - f elsewhere.
PERMAFROST_LANES __m512 reflect(__m512 x, __m512 f) {
  const __mmask16 not_negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NLT_UQ);
  return _mm512_mask_sub_ps(f, not_negative, set1(1.0f), f);
}

PERMAFROST_LANES __m512 relu(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }  // this order keeps NaN

/// `kBf16`: the result is stored in bf16, so shorter fits do (their errors are a fifth of its rounding and less).
template <Activation A, bool kBf16>
PERMAFROST_LANES __m512 activated(__m512 x) {
  if constexpr (A == Activation::kGelu) {
    const __m512 u = abs(x);
    return _mm512_mul_ps(x, reflect(x, kBf16 ? normal_tail_for_bf16(u) : normal_tail(u)));
  }
  if constexpr (A == Activation::kQuickGelu) {
    const __m512 z = _mm512_mul_ps(set1(kQuickGelu), x);
    return _mm512_mul_ps(x, kBf16 ? sigmoid_for_bf16(z) : sigmoid(z));
  }
  if constexpr (A == Activation::kRelu) return relu(x);
  if constexpr (A == Activation::kSquaredRelu) return _mm512_mul_ps(relu(x), relu(x));
  if constexpr (A == Activation::kTanh) return kBf16 ? tanh_for_bf16(x) : tanh(x);
  return x;
}

}  // namespace permafrost::avx512
