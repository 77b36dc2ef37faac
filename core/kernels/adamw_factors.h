#pragma once
#include <cmath>

#include "core/kernels/adamw.h"

namespace permafrost {

/// A step of adamw as the factors of its inner loop, rounded once from f64.
struct AdamwFactors {
  float grad_scale, decay, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_correction, eps;
};

inline AdamwFactors adamw_factors(const AdamwStep& step) {
  const double t = static_cast<double>(step.step);
  AdamwFactors f{};
  f.grad_scale = static_cast<float>(step.grad_scale);
  f.decay = static_cast<float>(1.0 - step.lr * step.weight_decay);
  f.beta1 = static_cast<float>(step.beta1);
  f.one_minus_beta1 = static_cast<float>(1.0 - step.beta1);
  f.beta2 = static_cast<float>(step.beta2);
  f.one_minus_beta2 = static_cast<float>(1.0 - step.beta2);
  f.step_size = static_cast<float>(step.lr / (1.0 - std::pow(step.beta1, t)));
  f.root_correction = static_cast<float>(std::sqrt(1.0 - std::pow(step.beta2, t)));
  f.eps = static_cast<float>(step.eps);
  return f;
}

}  // namespace permafrost
