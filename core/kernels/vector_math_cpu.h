#pragma once
#include <cstdint>

// The AVX-512 versions behind vector_math.h; for vector_math.cc alone.
namespace permafrost {

void vector_exp_avx512(const float* x, float* y, int64_t n);
void vector_erf_avx512(const float* x, float* y, int64_t n);
void vector_tanh_avx512(const float* x, float* y, int64_t n);

}  // namespace permafrost
