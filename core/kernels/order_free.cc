#include "core/kernels/order_free.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/device/bytes.h"
#include "core/kernels/order_free_cpu.h"
#include "core/kernels/order_free_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {
namespace {

void check_sums(const char* op, const Context& context, const Tensor& gradient, const Tensor& sums, DType dtype,
                const Tensor& range) {
  check_dtype(op, "gradient", gradient, context, {DType::kF32});
  check_tensor(op, "sums", sums, context, Shape{gradient.elements()}, {dtype});
  check_tensor(op, "range", range, context, Shape{1}, {DType::kI32});
  check_device(op, context);
}

}  // namespace

int32_t GradientRange::exponent() const {
  if (largest_bits == 0) return kZeroExponent;
  if (!finite()) return 129;
  int exponent = 0;
  std::frexp(std::bit_cast<float>(largest_bits), &exponent);  // x = f 2^e with f in [0.5, 1)
  return exponent;
}

OrderFreeScale OrderFreeScale::make(int32_t exponent, int64_t micro_batches) {
  PERMAFROST_CHECK(micro_batches >= 1 && micro_batches <= (int64_t{1} << 32),
                   "order_free: micro-batches must be in 1..2^32; got ", micro_batches);
  const int32_t e = std::clamp(exponent, -100, 140);
  const auto room = static_cast<int32_t>(std::bit_width(static_cast<uint64_t>(micro_batches - 1)));  // ceil(log2)
  return {e, 63 - room - e};
}

void order_free_add(const Context& context, Tensor scale, Tensor gradient, Tensor sums, GradMode mode, Tensor range) {
  check_tensor("order_free_add", "scale", scale, context, Shape{2}, {DType::kI32});
  check_sums("order_free_add", context, gradient, sums, DType::kI64, range);
  if (on_cuda(context)) return cuda::order_free_add(context, scale, gradient, sums, mode, range);
  cpu::order_free_add(context, scale, gradient, sums, mode, range);
}

void gradient_range(const Context& context, Tensor gradient, Tensor range) {
  check_dtype("gradient_range", "gradient", gradient, context, {DType::kF32});
  check_tensor("gradient_range", "range", range, context, Shape{1}, {DType::kI32});
  check_device("gradient_range", context);
  if (on_cuda(context)) return cuda::gradient_range(context, gradient, range);
  cpu::gradient_range(context, gradient, range);
}

void order_free_value(const Context& context, OrderFreeScale scale, Tensor sums, Tensor gradient) {
  check_rank("order_free_value", "sums", sums, context, 1, "(n)", {DType::kI64});
  check_tensor("order_free_value", "gradient", gradient, context, sums.shape(), {DType::kF32});
  check_device("order_free_value", context);
  if (on_cuda(context)) return cuda::order_free_value(context, scale, sums, gradient);
  cpu::order_free_value(context, scale, sums, gradient);
}

void order_free_values(const Context& context, Tensor pieces, Tensor scales, Tensor sums, Tensor slice) {
  check_rank("order_free_values", "pieces", pieces, context, 2, "(n, 5)", {DType::kI64});
  check_tensor("order_free_values", "pieces", pieces, context, Shape{pieces.dim(0), 5}, {DType::kI64});
  check_rank("order_free_values", "scales", scales, context, 2, "(rows, 2)", {DType::kI32});
  check_rank("order_free_values", "sums", sums, context, 1, "(s)", {DType::kI64});
  check_tensor("order_free_values", "slice", slice, context, sums.shape(), {DType::kF32});
  check_device("order_free_values", context);
  fill_bytes(context, slice.raw(), 0, slice.bytes());
  if (on_cuda(context)) return cuda::order_free_values(context, pieces, scales, sums, slice);
  cpu::order_free_values(context, pieces, scales, sums, slice);
}

void plain_add(const Context& context, Tensor gradient, Tensor sums, GradMode mode, Tensor range) {
  check_sums("plain_add", context, gradient, sums, DType::kF32, range);
  if (on_cuda(context)) return cuda::plain_add(context, gradient, sums, mode, range);
  cpu::plain_add(context, gradient, sums, mode, range);
}

void block_square_sums(const Context& context, Tensor values, Tensor sums) {
  check_rank("block_square_sums", "values", values, context, 1, "(n)", {DType::kF32});
  check_tensor("block_square_sums", "sums", sums, context,
               Shape{(values.elements() + kSquareSumBlock - 1) / kSquareSumBlock}, {DType::kF64});
  check_device("block_square_sums", context);
  if (on_cuda(context)) return cuda::block_square_sums(context, values, sums);
  cpu::block_square_sums(context, values, sums);
}

void norm_of_blocks(const Context& context, Tensor sums, double clip_norm, Tensor norm, Tensor clip, Tensor apply) {
  check_rank("norm_of_blocks", "sums", sums, context, 1, "(n)", {DType::kF64});
  check_tensor("norm_of_blocks", "norm", norm, context, Shape{1}, {DType::kF64});
  check_tensor("norm_of_blocks", "clip", clip, context, Shape{1}, {DType::kF32});
  check_tensor("norm_of_blocks", "apply", apply, context, Shape{1}, {DType::kI32});
  check_device("norm_of_blocks", context);
  if (on_cuda(context)) return cuda::norm_of_blocks(context, sums, clip_norm, norm, clip, apply);
  cpu::norm_of_blocks(context, sums, clip_norm, norm, clip, apply);
}

}  // namespace permafrost
