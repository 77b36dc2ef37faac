#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Layer normalisation over the last axis, forward: y = (x - mean) rstd gain + bias, rstd = (var + eps)^(-1/2),
/// population variance, statistics in f32 (two passes: no cancellation when the mean is large).
/// x, y: (R, C) f32 or bf16, same dtype;  gain, bias: (C) f32
/// mean, rstd: (R) f32, kept for backward; undefined = not kept. y == x is allowed when nothing is kept.
/// a, b: (R, C) dtype of x, both or none. Given: x is written first, with what add_forward(a, b) gives, bit for bit:
/// the sum of a residual stream and its norm in one pass over memory. x == a is allowed. Errors: ShapeMismatch;
/// InvalidArgument (one of a and b alone); NotBuilt on a device without this kernel. Source: Ba et al. 2016, arXiv
/// 1607.06450, eq. 4; eps inside the root.
struct LayerNormForward {
  Tensor x, gain, bias, y, mean, rstd;
  float eps = 1e-5f;
  Tensor a = {}, b = {};
};
void layer_norm_forward(const Context& context, const LayerNormForward& args);

/// Backward, with n = (x - mean) rstd and g = dy gain:
///   dx = rstd (g - mean(g) - n mean(g n)),  dgain = sum over rows of dy n,  dbias = sum over rows of dy.
/// dy, x, dx: (R, C) f32 or bf16, same dtype;  gain, dgain, dbias: (C) f32;  mean, rstd: (R) f32 from forward.
/// dx, dgain, dbias may each be undefined (not needed: not computed); gain is read for dx alone. dx == dy is allowed
/// when dx is overwritten.
/// dgain and dbias are summed over chunks of rows that depend on R alone, then over chunks in order. Of a chunk CPU
/// adds row after row, CUDA every eighth row and then these eight sums. Workspace: layer_norm_workspace_bytes(R, C,
/// dgain or dbias wanted); may be undefined when that is 0. Errors: ShapeMismatch (workspace too small included);
/// NotBuilt on a device without this kernel.
struct LayerNormBackward {
  Tensor dy, x, gain, mean, rstd, dx, dgain, dbias;
  GradMode dx_mode = GradMode::kOverwrite, dgain_mode = GradMode::kOverwrite, dbias_mode = GradMode::kOverwrite;
};
void layer_norm_backward(const Context& context, const LayerNormBackward& args, Tensor workspace);
int64_t layer_norm_workspace_bytes(int64_t rows, int64_t width, bool parameter_gradients);

}  // namespace permafrost
