#include "core/kernels/adamw.h"

#include <cmath>

#include "core/kernels/adamw_cpu.h"
#include "core/kernels/adamw_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {

void check_step(const AdamwStep& step) {
  PERMAFROST_CHECK(step.step >= 1, "adamw: step must count from 1; got ", step.step);
  PERMAFROST_CHECK(step.beta1 >= 0 && step.beta1 < 1, "adamw: beta1 must lie in [0, 1); got ", step.beta1);
  PERMAFROST_CHECK(step.beta2 >= 0 && step.beta2 < 1, "adamw: beta2 must lie in [0, 1); got ", step.beta2);
  PERMAFROST_CHECK(step.eps >= 0, "adamw: eps must not be negative; got ", step.eps);
  PERMAFROST_CHECK(std::isfinite(step.lr), "adamw: lr must be finite; got ", step.lr);
  PERMAFROST_CHECK(std::isfinite(step.weight_decay), "adamw: weight_decay must be finite; got ", step.weight_decay);
  PERMAFROST_CHECK(std::isfinite(step.grad_scale), "adamw: grad_scale must be finite; got ", step.grad_scale);
}

}  // namespace

void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working) {
  check_step(step);
  check_rank("adamw", "master", master, context, 1, "(n)", {DType::kF32});
  check_tensor("adamw", "m", m, context, master.shape(), {DType::kF32});
  check_tensor("adamw", "v", v, context, master.shape(), {DType::kF32});
  check_tensor("adamw", "grad", grad, context, master.shape(), {DType::kF32});
  if (working)
    check_tensor("adamw", "working", working, context, master.shape(), {DType::kF32, DType::kBF16, DType::kF16});
  check_device("adamw", context);
  if (on_cuda(context)) return cuda::adamw(context, step, master, m, v, grad, working);
  cpu::adamw(context, step, master, m, v, grad, working);
}

}  // namespace permafrost
