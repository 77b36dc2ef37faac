#include "core/kernels/vector_math_avx512.h"

#include "core/kernels/vector_math_cpu.h"

namespace permafrost {

namespace {
template <typename Function>
void apply(const float* x, float* y, int64_t n, Function function) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) _mm512_storeu_ps(y + i, function(_mm512_loadu_ps(x + i)));
  if (i < n) {
    const __mmask16 tail = avx512::first_lanes(n - i);
    _mm512_mask_storeu_ps(y + i, tail, function(_mm512_maskz_loadu_ps(tail, x + i)));
  }
}
}  // namespace

void vector_exp_avx512(const float* x, float* y, int64_t n) {
  apply(x, y, n, [](__m512 v) { return avx512::exp(v); });
}
void vector_erf_avx512(const float* x, float* y, int64_t n) {
  apply(x, y, n, [](__m512 v) { return avx512::erf(v); });
}
void vector_tanh_avx512(const float* x, float* y, int64_t n) {
  apply(x, y, n, [](__m512 v) { return avx512::tanh(v); });
}

}  // namespace permafrost
