#pragma once
#include "core/base/check.h"
#include "core/kernels/elements_cuda.h"

// Activations of one number, for epilogues too. For *_cuda.cu alone.
namespace permafrost::cuda {

/// Phi(x) and e^(-x^2 / 2) for numbers of 8 or 11 bits: Phi of -|x| is e^(-x^2 / 2) times erfcx(|x| / sqrt(2)) / 2, a
/// polynomial in 1 / (1 + 0.35 |x|) with a relative error below 2^-21 up to 13.5, where the power becomes 0. Together
/// with all roundings below 2^-18 of every finite bf16 and f16, the far tail included (2^-20 up to 4); a third of the
/// operations of erfcf.
struct ShortNormal {
  float phi, power;
};
__device__ inline ShortNormal short_normal(float x) {
  constexpr float kP[] = {-2.731544e-05f, 0.14027034f, 0.13335505f, 0.15596169f,
                          -0.017023925f,  0.24064146f, -0.2021197f, 0.04894255f};
  const float u = fast_reciprocal(fmaf(0.35f, fabsf(x), 1.0f));
  const float power = fast_exp2(x * x * -0.72134752044f);
  float p = kP[7];
#pragma unroll
  for (int i = 6; i >= 0; --i) p = fmaf(p, u, kP[i]);
  const float tail = power * p;
  return {x < 0.0f ? tail : 1.0f - tail, power};
}

/// 1 / (1 + e^(-1.702 x)).
template <bool is_short>
__device__ inline float quick_sigmoid(float x) {
  if constexpr (is_short) return fast_reciprocal(1.0f + fast_exp2(x * (-1.702f * 1.44269504089f)));
  return 1.0f / (1.0f + expf(-1.702f * x));
}

/// Of a number that is stored as T.
template <Activation A, typename T>
__device__ inline float activation_value(float x) {
  constexpr bool kShort = sizeof(T) == 2;
  if constexpr (A == Activation::kGelu && kShort) return x * short_normal(x).phi;
  if constexpr (A == Activation::kGelu) return x * (0.5f * erfcf(-x * 0.70710678118654752f));
  if constexpr (A == Activation::kQuickGelu && kShort) return x * quick_sigmoid<true>(x);
  if constexpr (A == Activation::kQuickGelu) return x / (1.0f + expf(-1.702f * x));
  if constexpr (A == Activation::kRelu) return x < 0.0f ? 0.0f : x;
  if constexpr (A == Activation::kSquaredRelu) return x < 0.0f ? 0.0f : x * x;
  if constexpr (A == Activation::kTanh) return tanhf(x);
  return x;
}

/// The derivative, from what forward kept (activation_keeps_output).
template <Activation A, typename T>
__device__ inline float activation_slope(float kept) {
  constexpr bool kShort = sizeof(T) == 2;
  constexpr float kInverseRootTwoPi = 0.39894228040143268f;
  if constexpr (A == Activation::kGelu && kShort) {
    const ShortNormal normal = short_normal(kept);
    return fmaf(kept, kInverseRootTwoPi * normal.power, normal.phi);
  }
  if constexpr (A == Activation::kGelu)
    return 0.5f * erfcf(-kept * 0.70710678118654752f) + kept * (kInverseRootTwoPi * expf(-0.5f * kept * kept));
  if constexpr (A == Activation::kQuickGelu) {
    const float s = quick_sigmoid<kShort>(kept);
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
