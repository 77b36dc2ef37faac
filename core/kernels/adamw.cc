#include "core/kernels/adamw.h"

#include <cmath>

#include "core/kernels/adamw_cpu.h"
#include "core/kernels/adamw_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

void check_adamw_step(const AdamwStep& step) {
  PERMAFROST_CHECK(step.step >= 1, "adamw: step must count from 1; got ", step.step);
  PERMAFROST_CHECK(step.beta1 >= 0 && step.beta1 < 1, "adamw: beta1 must lie in [0, 1); got ", step.beta1);
  PERMAFROST_CHECK(step.beta2 >= 0 && step.beta2 < 1, "adamw: beta2 must lie in [0, 1); got ", step.beta2);
  PERMAFROST_CHECK(step.eps >= 0, "adamw: eps must not be negative; got ", step.eps);
  PERMAFROST_CHECK(std::isfinite(step.lr), "adamw: lr must be finite; got ", step.lr);
  PERMAFROST_CHECK(std::isfinite(step.weight_decay), "adamw: weight_decay must be finite; got ", step.weight_decay);
  PERMAFROST_CHECK(std::isfinite(step.grad_scale), "adamw: grad_scale must be finite; got ", step.grad_scale);
}

void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working) {
  check_adamw_step(step);
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

void adamw_pieces(const Context& context, const AdamwPieces& args) {
  constexpr int64_t kFactors = sizeof(AdamwFactors) / sizeof(float);
  check_rank("adamw_pieces", "pieces", args.pieces, context, 2, "(n, 5)", {DType::kI64});
  check_tensor("adamw_pieces", "pieces", args.pieces, context, Shape{args.pieces.dim(0), 5}, {DType::kI64});
  check_rank("adamw_pieces", "factors", args.factors, context, 2, "(rows, 9)", {DType::kF32});
  check_tensor("adamw_pieces", "factors", args.factors, context, Shape{args.factors.dim(0), kFactors}, {DType::kF32});
  check_tensor("adamw_pieces", "clip", args.clip, context, Shape{1}, {DType::kF32});
  check_tensor("adamw_pieces", "apply", args.apply, context, Shape{1}, {DType::kI32});
  check_rank("adamw_pieces", "master", args.master, context, 1, "(s)", {DType::kF32});
  for (const auto& [name, tensor] : {std::pair{"m", &args.m}, {"v", &args.v}, {"grad", &args.grad}})
    check_tensor("adamw_pieces", name, *tensor, context, args.master.shape(), {DType::kF32});
  check_rank("adamw_pieces", "working", args.working, context, 1, "(bytes)", {DType::kU8});
  check_device("adamw_pieces", context);
  if (on_cuda(context)) return cuda::adamw_pieces(context, args);
  cpu::adamw_pieces(context, args);
}

}  // namespace permafrost
