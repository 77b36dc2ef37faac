#pragma once
#include "core/base/check.h"
#include "core/device/cuda_launch.h"
#include "core/kernels/kernel_types.h"

// Activations of one number, for epilogues too. For *_cuda.cu alone.
namespace permafrost::cuda {

template <Activation A>
__device__ inline float activation_value(float x) {
  if constexpr (A == Activation::kGelu) return x * (0.5f * erfcf(-x * 0.70710678118654752f));
  if constexpr (A == Activation::kQuickGelu) return x / (1.0f + expf(-1.702f * x));
  if constexpr (A == Activation::kRelu) return x < 0.0f ? 0.0f : x;
  if constexpr (A == Activation::kSquaredRelu) return x < 0.0f ? 0.0f : x * x;
  if constexpr (A == Activation::kTanh) return tanhf(x);
  return x;
}

/// The derivative, from what forward kept (activation_keeps_output).
template <Activation A>
__device__ inline float activation_slope(float kept) {
  if constexpr (A == Activation::kGelu)
    return 0.5f * erfcf(-kept * 0.70710678118654752f) + kept * (0.39894228040143268f * expf(-0.5f * kept * kept));
  if constexpr (A == Activation::kQuickGelu) {
    const float s = 1.0f / (1.0f + expf(-1.702f * kept));
    return s + 1.702f * kept * (s * (1.0f - s));
  }
  if constexpr (A == Activation::kRelu) return kept <= 0.0f ? 0.0f : 1.0f;
  if constexpr (A == Activation::kSquaredRelu) return kept < 0.0f ? 0.0f : 2.0f * kept;
  if constexpr (A == Activation::kTanh) return 1.0f - kept * kept;
  return 1.0f;
}

/// Calls body.template operator()<A>() for the activation's constant A.
template <typename Body>
void with_activation(Activation activation, Body&& body) {
  switch (activation) {
    case Activation::kNone:
      return body.template operator()<Activation::kNone>();
    case Activation::kGelu:
      return body.template operator()<Activation::kGelu>();
    case Activation::kQuickGelu:
      return body.template operator()<Activation::kQuickGelu>();
    case Activation::kRelu:
      return body.template operator()<Activation::kRelu>();
    case Activation::kSquaredRelu:
      return body.template operator()<Activation::kSquaredRelu>();
    case Activation::kTanh:
      return body.template operator()<Activation::kTanh>();
  }
}

}  // namespace permafrost::cuda
