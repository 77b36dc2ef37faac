#include <immintrin.h>

#include <cmath>

#include "core/kernels/order_free_cpu.h"

namespace permafrost::cpu {

// Measured on 24,949,760 gradients, one thread: see docs/numerics.md.
uint32_t order_free_loop_avx512(OrderFreeScale scale, const float* gradient, int64_t* sums, int64_t n, GradMode mode) {
  const __m256i limit = _mm256_set1_epi32(static_cast<int>(limit_bits(scale.exponent)));
  const __m256i no_sign = _mm256_set1_epi32(0x7fffffff);
  const __m512d factor = _mm512_set1_pd(std::ldexp(1.0, scale.shift));
  __m256i largest = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 8) {
    const auto tail = static_cast<__mmask8>(n - i >= 8 ? 0xff : (1u << (n - i)) - 1u);
    const __m256 x = _mm256_maskz_loadu_ps(tail, gradient + i);
    const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), no_sign);
    largest = _mm256_max_epu32(largest, bits);
    const __mmask8 allowed = _mm256_cmplt_epu32_mask(bits, limit);
    const __m512i value = _mm512_maskz_cvt_roundpd_epi64(allowed, _mm512_mul_pd(_mm512_cvtps_pd(x), factor),
                                                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    if (mode == GradMode::kAdd)
      _mm512_mask_storeu_epi64(sums + i, tail, _mm512_add_epi64(_mm512_maskz_loadu_epi64(tail, sums + i), value));
    else
      _mm512_mask_storeu_epi64(sums + i, tail, value);
  }
  return static_cast<uint32_t>(_mm512_reduce_max_epu32(_mm512_zextsi256_si512(largest)));
}

}  // namespace permafrost::cpu
