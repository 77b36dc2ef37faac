#include "core/kernels/activation_cpu.h"

#include <cmath>
#include <numbers>

#include "core/base/check.h"

namespace permafrost {

namespace {
constexpr float kInvSqrt2 = 0.70710678118654752f;
constexpr float kInvSqrt2Pi = 0.39894228040143268f;
constexpr float kQuick = 1.702f;

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

template <Activation A>
float value(float x) {
  if constexpr (A == Activation::kGelu) return x * (0.5f * std::erfc(-x * kInvSqrt2));
  if constexpr (A == Activation::kQuickGelu) return x * sigmoid(kQuick * x);
  if constexpr (A == Activation::kRelu) return x < 0.0f ? 0.0f : x;
  if constexpr (A == Activation::kSquaredRelu) return x < 0.0f ? 0.0f : x * x;
  if constexpr (A == Activation::kTanh) return std::tanh(x);
  return x;
}

/// f' from what forward kept.
template <Activation A>
float slope(float kept) {
  if constexpr (A == Activation::kGelu)
    return 0.5f * std::erfc(-kept * kInvSqrt2) + kept * (kInvSqrt2Pi * std::exp(-0.5f * kept * kept));
  if constexpr (A == Activation::kQuickGelu) {
    const float s = sigmoid(kQuick * kept);
    return s + kQuick * kept * (s * (1.0f - s));
  }
  if constexpr (A == Activation::kRelu) return kept <= 0.0f ? 0.0f : 1.0f;
  if constexpr (A == Activation::kSquaredRelu) return kept < 0.0f ? 0.0f : 2.0f * kept;
  if constexpr (A == Activation::kTanh) return 1.0f - kept * kept;
  return 1.0f;
}

template <Activation A, typename T>
void forward(const T* x, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(value<A>(static_cast<float>(x[i])));
}

template <Activation A, typename T>
void backward(const T* kept, const T* dy, T* dx, int64_t n, bool add) {
  for (int64_t i = 0; i < n; ++i) {
    const float gradient = static_cast<float>(dy[i]) * slope<A>(static_cast<float>(kept[i]));
    dx[i] = T(add ? static_cast<float>(dx[i]) + gradient : gradient);
  }
}

/// Calls function.template operator()<A>() for the activation's constant A.
template <typename Function>
void with_activation(Activation activation, Function&& function) {
  switch (activation) {
    case Activation::kNone:
      return function.template operator()<Activation::kNone>();
    case Activation::kGelu:
      return function.template operator()<Activation::kGelu>();
    case Activation::kQuickGelu:
      return function.template operator()<Activation::kQuickGelu>();
    case Activation::kRelu:
      return function.template operator()<Activation::kRelu>();
    case Activation::kSquaredRelu:
      return function.template operator()<Activation::kSquaredRelu>();
    case Activation::kTanh:
      return function.template operator()<Activation::kTanh>();
  }
}
}  // namespace

void activation_forward_cpu(Activation activation, DType dtype, const void* x, void* y, int64_t n, SimdLevel level) {
  const bool bf16 = dtype == DType::kBF16;
  if (level >= SimdLevel::kAvx512) return activation_forward_avx512(activation, bf16, x, y, n);
  with_activation(activation, [&]<Activation A>() {
    if (bf16) return forward<A>(static_cast<const bfloat16*>(x), static_cast<bfloat16*>(y), n);
    forward<A>(static_cast<const float*>(x), static_cast<float*>(y), n);
  });
}

void activation_backward_cpu(Activation activation, DType dtype, const void* kept, const void* dy, void* dx, int64_t n,
                             GradMode mode, SimdLevel level) {
  const bool bf16 = dtype == DType::kBF16, add = mode == GradMode::kAdd;
  if (level >= SimdLevel::kAvx512) return activation_backward_avx512(activation, bf16, kept, dy, dx, n, add);
  with_activation(activation, [&]<Activation A>() {
    if (bf16)
      return backward<A>(static_cast<const bfloat16*>(kept), static_cast<const bfloat16*>(dy),
                         static_cast<bfloat16*>(dx), n, add);
    backward<A>(static_cast<const float*>(kept), static_cast<const float*>(dy), static_cast<float*>(dx), n, add);
  });
}

}  // namespace permafrost
