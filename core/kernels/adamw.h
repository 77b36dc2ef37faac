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

/// Errors: InvalidArgument for step < 1, a beta outside [0, 1), eps < 0 or a coefficient not finite.
void check_adamw_step(const AdamwStep& step);

/// AdamW with decoupled decay, one pass in f32:
///   p *= 1 - lr wd;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr / (1-b1^t) m / (sqrt(v / (1-b2^t)) + eps)
/// master, m, v, grad: (n) f32;  working: (n) f32, bf16 or f16, the rounded master; undefined = none.
/// Coefficients are computed in f64 and rounded once. CPU and CUDA give the same bits (those of a NaN excepted). NaN in
/// grad reaches all outputs. Errors: ShapeMismatch, and those of check_adamw_step. Source: Loshchilov & Hutter 2019,
/// arXiv 1711.05101, algorithm 2; operation order as in PyTorch's AdamW.
void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working);

/// A step of many parameters in one pass, as `adamw` of each. What is known before gradients are (factors) and what
/// follows from them (clip, apply) lie beside them, so that nobody waits and a captured program can be run again.
struct AdamwPieces {
  Tensor pieces;              ///< (n, 5) i64: FlatPiece (flat_pieces.h)
  Tensor factors;             ///< (rows, 9) f32: AdamwFactors (adamw_factors.h) of each parameter
  Tensor clip;                ///< (1) f32: what gradients are multiplied with, instead of the rows' grad_scale
  Tensor apply;               ///< (1) i32: 0 changes nothing
  Tensor master, m, v, grad;  ///< (s) f32: the slice
  Tensor working;             ///< (bytes) u8: the space of working copies
};
/// Errors: ShapeMismatch.
void adamw_pieces(const Context& context, const AdamwPieces& args);

}  // namespace permafrost
