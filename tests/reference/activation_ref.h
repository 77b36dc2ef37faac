#pragma once
#include <cmath>
#include <numbers>
#include <vector>

#include "core/kernels/kernel_types.h"
#include "tests/support/gradient_check.h"

namespace permafrost::reference {

template <typename S>
S activation(Activation kind, const S& x) {
  using std::erf, std::exp, std::tanh;
  switch (kind) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return 0.5 * x * (1.0 + erf(x * (1.0 / std::numbers::sqrt2)));
    case Activation::kQuickGelu:
      return x / (1.0 + exp(-1.702 * x));
    case Activation::kRelu:
      return testing::value_of(x) > 0 ? x : S(0.0);
    case Activation::kSquaredRelu:
      return testing::value_of(x) > 0 ? x * x : S(0.0);
    case Activation::kTanh:
      return tanh(x);
  }
  return x;
}

/// f'(x), written by hand.
inline double activation_slope(Activation kind, double x) {
  const double sigmoid = 1.0 / (1.0 + std::exp(-1.702 * x)), tanh = std::tanh(x);
  switch (kind) {
    case Activation::kNone:
      return 1.0;
    case Activation::kGelu:
      return 0.5 * std::erfc(-x / std::numbers::sqrt2) +
             x * std::exp(-0.5 * x * x) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
    case Activation::kQuickGelu:
      return sigmoid * (1.0 + 1.702 * x * (1.0 - sigmoid));
    case Activation::kRelu:
      return x > 0 ? 1.0 : 0.0;
    case Activation::kSquaredRelu:
      return x > 0 ? 2.0 * x : 0.0;
    case Activation::kTanh:
      return 1.0 - tanh * tanh;
  }
  return 0.0;
}

}  // namespace permafrost::reference
