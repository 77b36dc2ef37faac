#pragma once
#include "core/kernels/adamw_factors.h"

/// Arithmetic of adamw.h on CPU; arguments are checked already.
namespace permafrost::cpu {

void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working);

void adamw_pieces(const Context& context, const AdamwPieces& args);

/// One block of `n` elements; `working` may be null.
struct AdamwBlock {
  float *master, *m, *v;
  const float* grad;
  void* working;
  DType working_dtype;
  int64_t n;
};

using AdamwLoop = void (*)(const AdamwFactors& factors, const AdamwBlock& block);
void adamw_loop_baseline(const AdamwFactors& factors, const AdamwBlock& block);
void adamw_loop_avx512(const AdamwFactors& factors, const AdamwBlock& block);

}  // namespace permafrost::cpu
