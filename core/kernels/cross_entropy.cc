#include "core/kernels/cross_entropy.h"

#include "core/kernels/cross_entropy_cpu.h"
#include "core/kernels/cross_entropy_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {

constexpr auto kF32 = DType::kF32;

void check_inputs(std::string_view op, const Tensor& logits, const Tensor& labels, float smoothing,
                  const Context& context) {
  check_rank(op, "logits", logits, context, 2, "(R, V)", activation_dtypes(context));
  check_tensor(op, "labels", labels, context, {logits.dim(0)}, {DType::kI32});
  PERMAFROST_CHECK(smoothing >= 0 && smoothing < 1, op, ": smoothing must lie in [0, 1); got ", smoothing);
  check_device(op, context);
}

}  // namespace

void cross_entropy_forward(const Context& context, Tensor logits, Tensor labels, float smoothing, Tensor row_loss,
                           Tensor lse) {
  check_inputs("cross_entropy_forward", logits, labels, smoothing, context);
  check_tensor("cross_entropy_forward", "row_loss", row_loss, context, labels.shape(), {kF32});
  if (lse) check_tensor("cross_entropy_forward", "lse", lse, context, labels.shape(), {kF32});
  if (on_cuda(context)) return cuda::cross_entropy_forward(context, logits, labels, smoothing, row_loss, lse);
  cpu::cross_entropy_forward(context, logits, labels, smoothing, row_loss, lse);
}

void cross_entropy_backward(const Context& context, Tensor logits, Tensor labels, Tensor lse, Tensor row_weight,
                            float smoothing, Tensor dlogits) {
  check_inputs("cross_entropy_backward", logits, labels, smoothing, context);
  check_tensor("cross_entropy_backward", "lse", lse, context, labels.shape(), {kF32});
  check_tensor("cross_entropy_backward", "row_weight", row_weight, context, labels.shape(), {kF32});
  check_tensor("cross_entropy_backward", "dlogits", dlogits, context, logits.shape(), activation_dtypes(context));
  if (dlogits.raw() == logits.raw() && dlogits.dtype() != logits.dtype())
    fail(ErrorKind::kShapeMismatch, "cross_entropy_backward: dlogits in place of logits must be ",
         to_string(logits.dtype()), "; got ", to_string(dlogits.dtype()));
  if (on_cuda(context))
    return cuda::cross_entropy_backward(context, logits, labels, lse, row_weight, smoothing, dlogits);
  cpu::cross_entropy_backward(context, logits, labels, lse, row_weight, smoothing, dlogits);
}

void weighted_sum(const Context& context, Tensor row_loss, Tensor row_weight, Tensor loss) {
  check_rank("weighted_sum", "row_loss", row_loss, context, 1, "(R)", {kF32});
  check_tensor("weighted_sum", "row_weight", row_weight, context, row_loss.shape(), {kF32});
  check_tensor("weighted_sum", "loss", loss, context, {1}, {DType::kF64});
  check_device("weighted_sum", context);
  if (on_cuda(context)) return cuda::weighted_sum(context, row_loss, row_weight, loss);
  cpu::weighted_sum(context, row_loss, row_weight, loss);
}

}  // namespace permafrost
