#include <immintrin.h>

#include "launch/bench/peak_loops.h"

namespace permafrost::bench {

double spin_fma_avx512(int64_t rounds) {
  constexpr int kSums = 16;
  __m512 sums[kSums];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512 x = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(x));  // a new x for all the compiler knows: the loop stays
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) sums[s] = _mm512_fmadd_ps(x, x, sums[s]);
  }
  for (auto& sum : sums) asm volatile("" : : "v"(sum));
  return 2.0 * 16 * kSums;
}

}  // namespace permafrost::bench
