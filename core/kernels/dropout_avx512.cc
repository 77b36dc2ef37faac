#include <immintrin.h>

#include "core/kernels/dropout_loops.h"

namespace permafrost::cpu {

namespace {

struct Product {
  __m512i high, low;
};

/// 32 x 32 -> 64 bits in every lane.
inline Product multiply(__m512i a, __m512i factor) {
  const __m512i even = _mm512_mul_epu32(a, factor);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), factor);
  constexpr __mmask16 kOdd = 0xAAAA;
  return {_mm512_mask_blend_epi32(kOdd, _mm512_srli_epi64(even, 32), odd),
          _mm512_mask_blend_epi32(kOdd, even, _mm512_slli_epi64(odd, 32))};
}

/// Sixteen Philox blocks side by side. Lane 4 a + b computes block first + a + 4 b, so that transposing each 128-bit
/// part gives 64 consecutive words.
inline void draw_64(const DropoutFactors& f, uint32_t first_block, float* out) {
  const __m512i multiply0 = _mm512_set1_epi32(static_cast<int>(0xD2511F53)),
                multiply1 = _mm512_set1_epi32(static_cast<int>(0xCD9E8D57));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i c0 = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first_block)), order);
  __m512i c1 = _mm512_set1_epi32(static_cast<int>(f.counter[1]));
  __m512i c2 = _mm512_set1_epi32(static_cast<int>(f.counter[2]));
  __m512i c3 = _mm512_set1_epi32(static_cast<int>(f.counter[3]));
  uint32_t key0 = f.key[0], key1 = f.key[1];
  for (int round = 0; round < 10; ++round) {
    const Product p0 = multiply(c0, multiply0), p1 = multiply(c2, multiply1);
    c0 = _mm512_xor_si512(_mm512_xor_si512(p1.high, c1), _mm512_set1_epi32(static_cast<int>(key0)));
    c1 = p1.low;
    c2 = _mm512_xor_si512(_mm512_xor_si512(p0.high, c3), _mm512_set1_epi32(static_cast<int>(key1)));
    c3 = p0.low;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  const __m512i low01 = _mm512_unpacklo_epi32(c0, c1), high01 = _mm512_unpackhi_epi32(c0, c1);
  const __m512i low23 = _mm512_unpacklo_epi32(c2, c3), high23 = _mm512_unpackhi_epi32(c2, c3);
  const __m512i words[4] = {_mm512_unpacklo_epi64(low01, low23), _mm512_unpackhi_epi64(low01, low23),
                            _mm512_unpacklo_epi64(high01, high23), _mm512_unpackhi_epi64(high01, high23)};
  const __m512i threshold = _mm512_set1_epi32(static_cast<int>(f.threshold));
  const __m512 scale = _mm512_set1_ps(f.scale);
  for (int i = 0; i < 4; ++i) {
    const __mmask16 keep = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(words[i], 8), threshold);
    _mm512_storeu_ps(out + 16 * i, _mm512_maskz_mov_ps(keep, scale));
  }
}

void draw_avx512(const DropoutFactors& factors, uint32_t first_block, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 64) draw_64(factors, first_block + static_cast<uint32_t>(i / 4), out + i);
}

}  // namespace

const DropoutLoops kDropoutLoopsAvx512{draw_avx512, apply_any};

}  // namespace permafrost::cpu
