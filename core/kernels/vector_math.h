#pragma once
#include <cstdint>
#include <string_view>

namespace permafrost {

/// Which instructions a CPU kernel uses; a higher level includes the lower ones. Kernels take the level as argument so
/// that every version can be tested on one machine. Versions differ in the last bits; one process uses one level.
enum class SimdLevel : uint8_t {
  kPortable,  ///< plain C++
  kAvx512,    ///< AVX-512 F, BW, VL, DQ
  kAmx,       ///< kAvx512 and AMX tiles of bf16 (with AVX512-BF16)
};

std::string_view to_string(SimdLevel level);

/// The highest level of this processor.
SimdLevel simd_level();

/// y[i] = f(x[i]) for i < n, in f32, within 2 units in the last place (4 for erf and tanh). An element's result does
/// not depend on its place. In place (y == x) is allowed. NaN gives NaN; exp overflows to inf and goes to 0 through the
/// denormals.
void vector_exp(const float* x, float* y, int64_t n, SimdLevel level = simd_level());
void vector_erf(const float* x, float* y, int64_t n, SimdLevel level = simd_level());
void vector_tanh(const float* x, float* y, int64_t n, SimdLevel level = simd_level());

}  // namespace permafrost
