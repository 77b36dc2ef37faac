#include "core/kernels/linear_cpu.h"

#include <algorithm>
#include <utility>

#include "core/base/narrow.h"

namespace permafrost {

namespace {
// Up to this many rows forward computes W x^T: W is then read in place, and it is x that is packed. [Note: linear]
constexpr int64_t kFewRows = 96;
constexpr int64_t kSumColumns = 64;  // of dbias, one block

ProductOperand operand(const Tensor& t, bool r_contiguous) { return {t.raw(), t.dtype(), r_contiguous, t.dim(1)}; }

std::byte* bytes_of(const Tensor& workspace) { return static_cast<std::byte*>(workspace.raw()); }
}  // namespace

const ProductEngine& product_engine(SimdLevel level, DType compute) {
  if (level == SimdLevel::kPortable) return portable_engine();
  if (level == SimdLevel::kAvx512) return avx512_engine();
  return compute == DType::kBF16 ? amx_engine() : split_amx_engine();
}

Product forward_product(const LinearForward& args) {
  Product p{.i = args.x.dim(0),
            .j = args.weight.dim(0),
            .r = args.x.dim(1),
            .a = operand(args.x, true),
            .b = operand(args.weight, true),
            .out = {.y = args.y.raw(),
                    .pre = args.pre.raw(),
                    .bias = static_cast<const float*>(args.bias.raw()),
                    .dtype = args.y.dtype(),
                    .activation = args.activation,
                    .ld = args.weight.dim(0)}};
  if (p.i <= kFewRows && p.i < p.j) {
    std::swap(p.i, p.j);
    std::swap(p.a, p.b);
    p.out.transposed = true;
  }
  return p;
}

Product input_gradient_product(const LinearBackwardInput& args) {
  return {
      .i = args.dy.dim(0),
      .j = args.weight.dim(1),
      .r = args.weight.dim(0),
      .a = operand(args.dy, true),
      .b = operand(args.weight, false),
      .out = {
          .y = args.dx.raw(), .dtype = args.dx.dtype(), .add = args.mode == GradMode::kAdd, .ld = args.weight.dim(1)}};
}

Product weight_gradient_product(const LinearBackwardWeight& args) {
  return {.i = args.dy.dim(1),
          .j = args.x.dim(1),
          .r = args.dy.dim(0),
          .a = operand(args.dy, false),
          .b = operand(args.x, false),
          .out = {.y = args.dweight.raw(), .add = args.dweight_mode == GradMode::kAdd, .ld = args.x.dim(1)}};
}

void linear_forward_cpu(const Context& context, const LinearForward& args, Tensor workspace, SimdLevel level) {
  run_product(*context.pool, forward_product(args), product_engine(level, args.x.dtype()), bytes_of(workspace));
}

void linear_backward_input_cpu(const Context& context, const LinearBackwardInput& args, Tensor workspace,
                               SimdLevel level) {
  run_product(*context.pool, input_gradient_product(args), product_engine(level, args.dy.dtype()), bytes_of(workspace));
}

void linear_backward_weight_cpu(const Context& context, const LinearBackwardWeight& args, Tensor workspace,
                                SimdLevel level) {
  if (args.dweight)
    run_product(*context.pool, weight_gradient_product(args), product_engine(level, args.dy.dtype()),
                bytes_of(workspace));
  if (!args.dbias) return;
  const int64_t n = args.dy.dim(1);
  context.pool->run(div_up(n, kSumColumns), [&](int64_t block, int) {
    const int64_t j0 = block * kSumColumns;
    const ColumnSums sums{.dy = args.dy.raw(),
                          .dtype = args.dy.dtype(),
                          .rows = args.dy.dim(0),
                          .ld = n,
                          .j0 = j0,
                          .columns = std::min(kSumColumns, n - j0),
                          .sums = args.dbias.data<float>(),
                          .add = args.dbias_mode == GradMode::kAdd};
    level >= SimdLevel::kAvx512 ? column_sums_avx512(sums) : column_sums_portable(sums);
  });
}

}  // namespace permafrost
