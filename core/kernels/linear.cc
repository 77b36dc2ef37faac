#include "core/kernels/linear.h"

#include <algorithm>
#include <string_view>

#include "core/kernels/linear_cpu.h"
#include "core/kernels/linear_cuda.h"
#include "core/kernels/product_choices.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {
void check_weight(std::string_view op, const Tensor& weight, const Context& context, const Shape& shape,
                  DType compute) {
  if (compute == DType::kF32)
    check_tensor(op, "weight", weight, context, shape, {DType::kF32, DType::kBF16, DType::kF16});
  else
    check_tensor(op, "weight", weight, context, shape, {compute});
}

void check_workspace(std::string_view op, const Tensor& workspace, const Context& context, int64_t needed) {
  if (needed == 0 && !workspace) return;
  check_dtype(op, "workspace", workspace, context, {DType::kU8});
  PERMAFROST_CHECK(workspace.bytes() >= needed, op, ": workspace must have ", needed, " bytes",
                   on_cuda(context) ? "" : concat(" for ", context.pool->threads(), " threads"), "; got ",
                   workspace.bytes());
}

/// Tensors without memory, for sizes.
Tensor shaped(DType dtype, int64_t rows, int64_t columns) { return {nullptr, dtype, {rows, columns}}; }

Product product_of(LinearPass pass, int64_t m, int64_t n, int64_t k, DType compute, DType weight) {
  const Tensor x = shaped(compute, m, k), w = shaped(weight, n, k), y = shaped(compute, m, n);
  switch (pass) {
    case LinearPass::kForward:
      return forward_product({.x = x, .weight = w, .bias = {}, .y = y, .pre = {}});
    case LinearPass::kBackwardInput:
      return input_gradient_product({.dy = y, .weight = w, .dx = x});
    case LinearPass::kBackwardWeight:
      break;
  }
  return weight_gradient_product({.x = x, .dy = y, .dweight = shaped(DType::kF32, n, k), .dbias = {}});
}

int64_t workspace_bytes(const Context& context, LinearPass pass, int64_t m, int64_t n, int64_t k, DType compute,
                        DType weight) {
  const int threads = on_cuda(context) ? 1 : context.pool->threads();
  return linear_workspace_bytes(pass, m, n, k, compute, weight, threads, context.device.kind);
}

void check(const Context& context, const LinearForward& args, const Tensor& workspace) {
  constexpr std::string_view kOp = "linear_forward";
  check_device(kOp, context);
  check_rank(kOp, "x", args.x, context, 2, "(M, K)", activation_dtypes(context));
  check_rank(kOp, "weight", args.weight, context, 2, "(N, K)", {DType::kF32, DType::kBF16, DType::kF16});
  const DType compute = args.x.dtype();
  const int64_t m = args.x.dim(0), k = args.x.dim(1), n = args.weight.dim(0);
  check_weight(kOp, args.weight, context, {n, k}, compute);
  if (args.bias && on_cuda(context) && args.y)
    check_tensor(kOp, "bias", args.bias, context, {n}, {DType::kF32, args.y.dtype()});
  else if (args.bias)
    check_tensor(kOp, "bias", args.bias, context, {n}, {DType::kF32});
  if (compute == DType::kF32)
    check_tensor(kOp, "y", args.y, context, {m, n}, {DType::kF32});
  else
    check_tensor(kOp, "y", args.y, context, {m, n}, {compute, DType::kF32});
  if (args.pre) check_tensor(kOp, "pre", args.pre, context, {m, n}, {args.y.dtype()});
  check_workspace(kOp, workspace, context,
                  workspace_bytes(context, LinearPass::kForward, m, n, k, compute, args.weight.dtype()));
}

void check(const Context& context, const LinearBackwardInput& args, const Tensor& workspace) {
  constexpr std::string_view kOp = "linear_backward_input";
  check_device(kOp, context);
  check_rank(kOp, "dy", args.dy, context, 2, "(M, N)", activation_dtypes(context));
  check_rank(kOp, "weight", args.weight, context, 2, "(N, K)", {DType::kF32, DType::kBF16, DType::kF16});
  const DType compute = args.dy.dtype();
  const int64_t m = args.dy.dim(0), n = args.dy.dim(1), k = args.weight.dim(1);
  check_weight(kOp, args.weight, context, {n, k}, compute);
  check_tensor(kOp, "dx", args.dx, context, {m, k}, {compute});
  check_workspace(kOp, workspace, context,
                  workspace_bytes(context, LinearPass::kBackwardInput, m, n, k, compute, args.weight.dtype()));
}

void check(const Context& context, const LinearBackwardWeight& args, const Tensor& workspace) {
  constexpr std::string_view kOp = "linear_backward_weight";
  check_device(kOp, context);
  check_rank(kOp, "dy", args.dy, context, 2, "(M, N)", activation_dtypes(context));
  const int64_t m = args.dy.dim(0), n = args.dy.dim(1);
  if (args.dbias) check_tensor(kOp, "dbias", args.dbias, context, {n}, {DType::kF32});
  int64_t k = 0;
  if (args.dweight) {
    check_rank(kOp, "x", args.x, context, 2, "(M, K)", {args.dy.dtype()});
    k = args.x.dim(1);
    check_tensor(kOp, "x", args.x, context, {m, k}, {args.dy.dtype()});
    check_tensor(kOp, "dweight", args.dweight, context, {n, k}, {DType::kF32});
  }
  // On CUDA dbias alone needs one too.
  if (args.dweight || (args.dbias && on_cuda(context)))
    check_workspace(kOp, workspace, context,
                    workspace_bytes(context, LinearPass::kBackwardWeight, m, n, k, args.dy.dtype(), DType::kF32));
}
}  // namespace

void linear_forward(const Context& context, const LinearForward& args, Tensor workspace) {
  check(context, args, workspace);
  if (on_cuda(context)) return cuda::linear_forward(context, args, workspace);
  linear_forward_cpu(context, args, workspace, simd_level());
}

void linear_backward_input(const Context& context, const LinearBackwardInput& args, Tensor workspace) {
  check(context, args, workspace);
  if (on_cuda(context)) return cuda::linear_backward_input(context, args, workspace);
  linear_backward_input_cpu(context, args, workspace, simd_level());
}

void linear_backward_weight(const Context& context, const LinearBackwardWeight& args, Tensor workspace) {
  check(context, args, workspace);
  if (on_cuda(context)) return cuda::linear_backward_weight(context, args, workspace);
  linear_backward_weight_cpu(context, args, workspace, simd_level());
}

void tune_linear(const Context& context, const LinearForward& args, Tensor workspace) {
  check(context, args, workspace);
  if (on_cuda(context)) cuda::tune_linear(context, args, workspace);
}

void tune_linear(const Context& context, const LinearBackwardInput& args, Tensor workspace) {
  check(context, args, workspace);
  if (on_cuda(context)) cuda::tune_linear(context, args, workspace);
}

void tune_linear(const Context& context, const LinearBackwardWeight& args, Tensor workspace) {
  check(context, args, workspace);
  if (on_cuda(context)) cuda::tune_linear(context, args, workspace);
}

std::string linear_choices(const Context& context) {
  check_device("linear_choices", context);
  if (!on_cuda(context)) return "";
  std::string text = product_device(context).library + "\n";
  for (const ProductChoice& choice : product_choices(context)) text += to_string(choice) + "\n";
  return text;
}

int64_t linear_workspace_bytes(LinearPass pass, int64_t m, int64_t n, int64_t k, DType compute, DType weight,
                               int threads, DeviceKind device) {
  PERMAFROST_CHECK(m >= 0 && n >= 0 && k >= 0 && threads >= 1,
                   "linear_workspace_bytes: extents must not be negative and threads at least 1; got m=", m, " n=", n,
                   " k=", k, " threads=", threads);
  if (device == DeviceKind::kCuda) return cuda::LinearParts(pass, m, n, k, compute, weight).bytes();
  const Product product = product_of(pass, m, n, k, compute, weight);
  int64_t bytes = 0;
  for (const SimdLevel level : {SimdLevel::kPortable, SimdLevel::kAvx512, SimdLevel::kAmx})
    bytes = std::max(bytes, product_workspace_bytes(product, product_engine(level, compute, product.r), threads));
  return bytes;
}

}  // namespace permafrost
