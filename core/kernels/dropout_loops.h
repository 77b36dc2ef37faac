#pragma once
#include "core/kernels/dropout_cpu.h"
#include "core/kernels/float_bits.h"

// Compiled once per instruction set (dropout_cpu.cc, dropout_avx512.cc).
namespace permafrost::cpu {
namespace {

template <typename T>
void apply_run(const T* x, const float* factors, T* out, int64_t n, GradMode mode) {
  if (mode == GradMode::kAdd) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) store(load(out + i) + load(x + i) * factors[i], out + i);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) store(load(x + i) * factors[i], out + i);
  }
}

void apply_any(DType dtype, const void* x, const float* factors, void* out, int64_t n, GradMode mode) {
  if (dtype == DType::kF32) {
    apply_run(static_cast<const float*>(x), factors, static_cast<float*>(out), n, mode);
  } else {
    apply_run(static_cast<const bfloat16*>(x), factors, static_cast<bfloat16*>(out), n, mode);
  }
}

}  // namespace
}  // namespace permafrost::cpu
