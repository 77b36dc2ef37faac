#include "core/kernels/linear_cpu.h"

#include <algorithm>
#include <utility>

#include "core/base/narrow.h"

namespace permafrost {

namespace {
// Up to this many rows forward computes W x^T: W is then read in place, and it is x that is packed. [Note: linear]
constexpr int64_t kFewRows = 96;
// f32 sums of fewer terms are left to the chain of FMA, which is as exact there. [Note: linear]
constexpr int64_t kSplitTerms = 384;
constexpr int64_t kSumColumns = 64;  // of dbias, one block

ProductOperand operand(const Tensor& t, bool r_contiguous) { return {t.raw(), t.dtype(), r_contiguous, t.dim(1)}; }

void run(const Context& context, const Product& product, DType compute, const Tensor& workspace, SimdLevel level) {
  run_product(*context.pool, product, product_engine(level, compute, product.r),
              static_cast<std::byte*>(workspace.raw()));
}
}  // namespace

const ProductEngine& product_engine(SimdLevel level, DType compute, int64_t terms) {
  if (level == SimdLevel::kPortable) return portable_engine();
  if (level == SimdLevel::kAvx512) return avx512_engine();
  if (compute == DType::kBF16) return amx_engine();
  return terms < kSplitTerms ? avx512_engine() : split_amx_engine();
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
  run(context, forward_product(args), args.x.dtype(), workspace, level);
}

void linear_backward_input_cpu(const Context& context, const LinearBackwardInput& args, Tensor workspace,
                               SimdLevel level) {
  run(context, input_gradient_product(args), args.dy.dtype(), workspace, level);
}

void linear_backward_weight_cpu(const Context& context, const LinearBackwardWeight& args, Tensor workspace,
                                SimdLevel level) {
  if (args.dweight) run(context, weight_gradient_product(args), args.dy.dtype(), workspace, level);
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
