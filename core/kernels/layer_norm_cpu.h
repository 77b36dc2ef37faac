#pragma once
#include <cstdint>

#include "core/kernels/vector_math.h"

// The arithmetic behind layer_norm.h.
namespace permafrost {

struct Context;
struct LayerNormForward;
struct LayerNormBackward;
class Tensor;

/// layer_norm.h's functions at a chosen level.
void layer_norm_forward_at(SimdLevel level, const Context& context, const LayerNormForward& args);
void layer_norm_backward_at(SimdLevel level, const Context& context, const LayerNormBackward& args, Tensor workspace);

// A range of rows, without checks or threads.

/// Rows of `width` elements, bf16 or f32 as `bf16` says; pointers at the first row of the range. mean, rstd may be
/// null.
struct LayerNormForwardRows {
  bool bf16;
  const void* x;
  const float *gain, *bias;
  void* y;
  float *mean, *rstd;
  int64_t rows, width;
  float eps;
};

/// dx null = not needed. dgain, dbias: sums over these rows alone, overwritten; null = not needed.
struct LayerNormBackwardRows {
  bool bf16;
  const void *dy, *x;
  const float *gain, *mean, *rstd;
  void* dx;
  bool add_dx;
  float *dgain, *dbias;
  int64_t rows, width;
};

void layer_norm_forward_portable(const LayerNormForwardRows& args);
void layer_norm_forward_avx512(const LayerNormForwardRows& args);
void layer_norm_backward_portable(const LayerNormBackwardRows& args);
void layer_norm_backward_avx512(const LayerNormBackwardRows& args);

inline void layer_norm_forward_cpu(const LayerNormForwardRows& args, SimdLevel level) {
  level >= SimdLevel::kAvx512 ? layer_norm_forward_avx512(args) : layer_norm_forward_portable(args);
}
inline void layer_norm_backward_cpu(const LayerNormBackwardRows& args, SimdLevel level) {
  level >= SimdLevel::kAvx512 ? layer_norm_backward_avx512(args) : layer_norm_backward_portable(args);
}

}  // namespace permafrost
