#pragma once
#include "core/kernels/adamw_cpu.h"
#include "core/kernels/float_bits.h"

// Compiled once per instruction set (adamw_cpu.cc, adamw_avx512.cc): the same operations, so the same bits.
namespace permafrost::cpu {
namespace {

struct NoWorking {};

template <typename Working>
void adamw_run(const AdamwFactors& f, const AdamwBlock& block, Working* __restrict working) {
  float* __restrict master = block.master;
  float* __restrict first = block.m;
  float* __restrict second = block.v;
  const float* __restrict grad = block.grad;
  const AdamwFactors factors = f;  // a copy: stores through float* cannot change it
  for (int64_t i = 0; i < block.n; ++i) {
    const float g = factors.grad_scale * grad[i];
    const float m = factors.beta1 * first[i] + factors.one_minus_beta1 * g;
    const float v = factors.beta2 * second[i] + factors.one_minus_beta2 * g * g;
    const float denominator = __builtin_sqrtf(v) / factors.root_correction + factors.eps;
    const float p = factors.decay * master[i] - factors.step_size * m / denominator;
    first[i] = m;
    second[i] = v;
    master[i] = p;
    if constexpr (!__is_same(Working, NoWorking)) store(p, working + i);
  }
}

PERMAFROST_INLINE void adamw_any(const AdamwFactors& factors, const AdamwBlock& block) {
  if (block.working == nullptr) {
    adamw_run<NoWorking>(factors, block, nullptr);
  } else if (block.working_dtype == DType::kF32) {
    adamw_run(factors, block, static_cast<float*>(block.working));
  } else if (block.working_dtype == DType::kBF16) {
    adamw_run(factors, block, static_cast<bfloat16*>(block.working));
  } else {
    adamw_run(factors, block, static_cast<float16*>(block.working));
  }
}

}  // namespace
}  // namespace permafrost::cpu
