#pragma once
#include <cmath>
#include <cstddef>
#include <vector>

#include "core/kernels/adamw.h"

namespace permafrost::reference {

template <typename S>
struct AdamwState {
  std::vector<S> param, m, v;
};

/// Algorithm 2 of arXiv 1711.05101 with the schedule multiplier in lr, element by element.
template <typename S>
void adamw(const AdamwStep& step, AdamwState<S>& state, const std::vector<S>& grad) {
  using std::sqrt;
  const double t = static_cast<double>(step.step);
  const S correction1(1.0 - std::pow(step.beta1, t)), correction2(1.0 - std::pow(step.beta2, t));
  for (size_t i = 0; i < grad.size(); ++i) {
    const S g = S(step.grad_scale) * grad[i];
    state.m[i] = S(step.beta1) * state.m[i] + S(1.0 - step.beta1) * g;
    state.v[i] = S(step.beta2) * state.v[i] + S(1.0 - step.beta2) * g * g;
    const S m_hat = state.m[i] / correction1, v_hat = state.v[i] / correction2;
    state.param[i] -= S(step.lr * step.weight_decay) * state.param[i];
    state.param[i] -= S(step.lr) * m_hat / (sqrt(v_hat) + S(step.eps));
  }
}

}  // namespace permafrost::reference
