#pragma once
#include <cstdint>

#include "core/device/context.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Hyperparameters of one tensor at one step. `step` counts from 1.
struct AdamwStep {
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  int64_t step = 1;
  double grad_scale = 1;  ///< gradient is multiplied by this first (clipping)
};

/// AdamW with decoupled decay, one pass in f32:
///   p *= 1 - lr wd;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr / (1-b1^t) m / (sqrt(v / (1-b2^t)) + eps)
/// master, m, v, grad: (n) f32;  working: (n) f32, bf16 or f16, the rounded master; undefined = none.
/// Coefficients are computed in f64 and rounded once. CPU and CUDA give the same bits (those of a NaN excepted). NaN in
/// grad reaches all outputs. Errors: ShapeMismatch; InvalidArgument for step < 1, a beta outside [0, 1), eps < 0 or a
/// coefficient not finite. Source: Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2; operation order as in
/// PyTorch's AdamW.
void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working);

}  // namespace permafrost
