#include "core/kernels/adamw_cpu.h"

#include <cmath>

#include "core/device/cpu_features.h"
#include "core/kernels/adamw_loops.h"
#include "core/kernels/elementwise.h"

namespace permafrost::cpu {

void adamw_loop_baseline(const AdamwFactors& factors, const AdamwBlock& block) { adamw_any(factors, block); }

namespace {

AdamwFactors factors_of(const AdamwStep& step) {
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

}  // namespace

void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working) {
  constexpr int64_t kBlock = 8192;  // five streams: about 200 KiB
  const AdamwLoop loop = cpu_features().avx512 ? adamw_loop_avx512 : adamw_loop_baseline;
  const AdamwFactors factors = factors_of(step);
  for_ranges(context, master.elements(), kBlock, [&](int64_t begin, int64_t end) {
    const AdamwBlock block{master.data<float>() + begin,
                           m.data<float>() + begin,
                           v.data<float>() + begin,
                           grad.data<float>() + begin,
                           working ? at(working, begin) : nullptr,
                           working.dtype(),
                           end - begin};
    loop(factors, block);
  });
}

}  // namespace permafrost::cpu
