#include "core/kernels/vector_math.h"

#include <cmath>

#include "core/device/cpu_features.h"
#include "core/kernels/vector_math_cpu.h"

namespace permafrost {

std::string_view to_string(SimdLevel level) {
  switch (level) {
    case SimdLevel::kPortable:
      return "portable";
    case SimdLevel::kAvx512:
      return "avx512";
    case SimdLevel::kAmx:
      return "amx";
  }
  return "?";
}

SimdLevel simd_level() {
  const CpuFeatures& features = cpu_features();
  if (features.avx512 && features.amx_bf16) return SimdLevel::kAmx;
  return features.avx512 ? SimdLevel::kAvx512 : SimdLevel::kPortable;
}

void vector_exp(const float* x, float* y, int64_t n, SimdLevel level) {
  if (level >= SimdLevel::kAvx512) return vector_exp_avx512(x, y, n);
  for (int64_t i = 0; i < n; ++i) y[i] = std::exp(x[i]);
}

void vector_erf(const float* x, float* y, int64_t n, SimdLevel level) {
  if (level >= SimdLevel::kAvx512) return vector_erf_avx512(x, y, n);
  for (int64_t i = 0; i < n; ++i) y[i] = std::erf(x[i]);
}

void vector_tanh(const float* x, float* y, int64_t n, SimdLevel level) {
  if (level >= SimdLevel::kAvx512) return vector_tanh_avx512(x, y, n);
  for (int64_t i = 0; i < n; ++i) y[i] = std::tanh(x[i]);
}

}  // namespace permafrost
