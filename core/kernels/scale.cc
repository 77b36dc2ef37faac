#include "core/kernels/scale.h"

#include "core/kernels/scale_cpu.h"
#include "core/kernels/scale_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {
constexpr auto kF32 = DType::kF32;

void multiply(const Context& context, Tensor x, Tensor factor, Tensor out, GradMode mode) {
  if (on_cuda(context)) return cuda::scale(context, x, factor, out, mode);
  cpu::scale(context, x, *factor.data<float>(), out, mode);
}
}  // namespace

void scale_forward(const Context& context, Tensor x, Tensor scale, Tensor out) {
  check_dtype("scale_forward", "x", x, context, activation_dtypes(context));
  check_tensor("scale_forward", "scale", scale, context, {1}, {kF32});
  check_tensor("scale_forward", "out", out, context, x.shape(), {x.dtype()});
  check_device("scale_forward", context);
  multiply(context, x, scale, out, GradMode::kOverwrite);
}

void scale_backward(const Context& context, const ScaleBackward& args, Tensor workspace) {
  check_dtype("scale_backward", "dy", args.dy, context, activation_dtypes(context));
  check_device("scale_backward", context);
  if (args.dscale) {  // before dx, which may lie in the memory of dy
    check_tensor("scale_backward", "x", args.x, context, args.dy.shape(), activation_dtypes(context));
    check_tensor("scale_backward", "dscale", args.dscale, context, {1}, {kF32});
    const int64_t bytes = scale_workspace_bytes(args.dy.elements());
    if (workspace.bytes() < bytes)
      fail(ErrorKind::kShapeMismatch, "scale_backward: workspace must have ", bytes, " bytes; got ", workspace.bytes());
    const auto dot = on_cuda(context) ? cuda::dot : cpu::dot;
    dot(context, args.dy, args.x, args.dscale, args.dscale_mode, static_cast<double*>(workspace.raw()));
  }
  if (args.dx) {
    check_tensor("scale_backward", "scale", args.scale, context, {1}, {kF32});
    check_tensor("scale_backward", "dx", args.dx, context, args.dy.shape(), {args.dy.dtype()});
    multiply(context, args.dy, args.scale, args.dx, args.dx_mode);
  }
}

int64_t scale_workspace_bytes(int64_t elements) {
  return cpu::dot_blocks(elements) * static_cast<int64_t>(sizeof(double));
}

}  // namespace permafrost
