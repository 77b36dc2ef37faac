#include "core/kernels/shape_ops.h"

#include "core/kernels/shape_ops_cpu.h"
#include "core/kernels/shape_ops_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {

constexpr auto kF32 = DType::kF32, kBF16 = DType::kBF16, kF16 = DType::kF16;

void check_trailing(std::string_view op, std::string_view small_name, const Tensor& small, std::string_view large_name,
                    const Tensor& large) {
  if (!is_trailing_shape(large.shape(), small.shape()))
    fail(ErrorKind::kShapeMismatch, op, ": ", small_name, " must have the trailing axes of ", large_name, " ",
         large.shape(), "; got ", small.spec());
}

/// part is (B, t, C) of x's dtype, and [begin, begin + t) lies within the T tokens of x (B, T, C).
void check_slice(std::string_view op, std::string_view x_name, const Tensor& x, std::string_view part_name,
                 const Tensor& part, int64_t begin, const Context& context) {
  check_rank(op, x_name, x, context, 3, "(B, T, C)", activation_dtypes(context));
  check_rank(op, part_name, part, context, 3, "(B, t, C)", {x.dtype()});
  check_tensor(op, part_name, part, context, {x.dim(0), part.dim(1), x.dim(2)}, {x.dtype()});
  if (begin < 0 || begin > x.dim(1) - part.dim(1))
    fail(ErrorKind::kShapeMismatch, op, ": tokens must lie within the ", x.dim(1), " of ", x_name, "; got ", begin,
         "..", begin + part.dim(1));
}

void move_runs(const Context& context, const Runs& source, const Runs& target, int64_t rows, int64_t run,
               GradMode mode) {
  if (on_cuda(context)) return cuda::move_runs(context, source, target, rows, run, mode);
  cpu::move_runs(context, source, target, rows, run, mode);
}

void zero_runs(const Context& context, const Runs& target, int64_t rows, int64_t run) {
  if (on_cuda(context)) return cuda::zero_runs(context, target, rows, run);
  cpu::zero_runs(context, target, rows, run);
}

void check_token(std::string_view op, const Tensor& x, int64_t row) {
  if (row < 0 || row >= x.dim(1))
    fail(ErrorKind::kShapeMismatch, op, ": row must lie within ", x.dim(1), " tokens; got ", row);
}

}  // namespace

void add_forward(const Context& context, Tensor a, Tensor b, Tensor out) {
  check_dtype("add", "a", a, context, activation_dtypes(context));
  check_dtype("add", "b", b, context, {kF32, kBF16, kF16});
  check_trailing("add", "b", b, "a", a);
  check_tensor("add", "out", out, context, a.shape(), {a.dtype()});
  check_device("add", context);
  if (on_cuda(context)) return cuda::add_forward(context, a, b, out);
  cpu::add_forward(context, a, b, out);
}

void accumulate(const Context& context, Tensor src, Tensor dst, GradMode mode) {
  check_dtype("accumulate", "src", src, context, {kF32, kBF16, kF16});
  check_tensor("accumulate", "dst", dst, context, src.shape(), {kF32, kBF16, kF16});
  check_device("accumulate", context);
  if (on_cuda(context)) return cuda::accumulate(context, src, dst, mode);
  cpu::accumulate(context, src, dst, mode);
}

void sum_leading(const Context& context, Tensor src, Tensor dst, GradMode mode) {
  check_dtype("sum_leading", "src", src, context, activation_dtypes(context));
  check_dtype("sum_leading", "dst", dst, context, {kF32, src.dtype()});
  check_trailing("sum_leading", "dst", dst, "src", src);
  check_device("sum_leading", context);
  if (on_cuda(context)) return cuda::sum_leading(context, src, dst, mode);
  cpu::sum_leading(context, src, dst, mode);
}

void broadcast_leading(const Context& context, Tensor src, Tensor dst) {
  check_dtype("broadcast_leading", "src", src, context, {kF32, kBF16, kF16});
  check_dtype("broadcast_leading", "dst", dst, context, activation_dtypes(context));
  check_trailing("broadcast_leading", "src", src, "dst", dst);
  check_device("broadcast_leading", context);
  if (on_cuda(context)) return cuda::broadcast_leading(context, src, dst);
  cpu::broadcast_leading(context, src, dst);
}

void concat_tokens(const Context& context, std::span<const Tensor> parts, Tensor out) {
  check_rank("concat_tokens", "out", out, context, 3, "(B, T, C)", activation_dtypes(context));
  int64_t tokens = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string name = concat("part ", i);
    check_rank("concat_tokens", name, parts[i], context, 3, "(B, t, C)", {out.dtype()});
    check_tensor("concat_tokens", name, parts[i], context, {out.dim(0), parts[i].dim(1), out.dim(2)}, {out.dtype()});
    tokens += parts[i].dim(1);
  }
  if (tokens != out.dim(1))
    fail(ErrorKind::kShapeMismatch, "concat_tokens: parts must have the ", out.dim(1), " tokens of out together; got ",
         tokens);
  check_device("concat_tokens", context);
  const int64_t width = out.dim(2), out_stride = out.dim(1) * width;
  int64_t offset = 0;
  for (const Tensor& part : parts) {
    const int64_t run = part.dim(1) * width;
    move_runs(context, {part, 0, run}, {out, offset, out_stride}, out.dim(0), run, GradMode::kOverwrite);
    offset += run;
  }
}

void slice_tokens(const Context& context, Tensor x, int64_t begin, Tensor out, GradMode mode) {
  check_slice("slice_tokens", "x", x, "out", out, begin, context);
  check_device("slice_tokens", context);
  const int64_t width = x.dim(2), run = out.dim(1) * width;
  move_runs(context, {x, begin * width, x.dim(1) * width}, {out, 0, run}, x.dim(0), run, mode);
}

void slice_tokens_backward(const Context& context, Tensor dout, int64_t begin, Tensor dx, GradMode mode) {
  check_slice("slice_tokens_backward", "dx", dx, "dout", dout, begin, context);
  check_device("slice_tokens_backward", context);
  const int64_t width = dx.dim(2), run = dout.dim(1) * width, stride = dx.dim(1) * width;
  const int64_t head = begin * width, tail = head + run;
  if (mode == GradMode::kOverwrite) {
    zero_runs(context, {dx, 0, stride}, dx.dim(0), head);
    zero_runs(context, {dx, tail, stride}, dx.dim(0), stride - tail);
  }
  move_runs(context, {dout, 0, run}, {dx, head, stride}, dx.dim(0), run, mode);
}

void overwrite_token(const Context& context, Tensor x, Tensor value, int64_t row, Tensor out) {
  check_rank("overwrite_token", "x", x, context, 3, "(B, T, C)", activation_dtypes(context));
  check_tensor("overwrite_token", "value", value, context, {x.dim(0), x.dim(2)}, {x.dtype()});
  check_tensor("overwrite_token", "out", out, context, x.shape(), {x.dtype()});
  check_token("overwrite_token", x, row);
  check_device("overwrite_token", context);
  const int64_t width = x.dim(2), stride = x.dim(1) * width, head = row * width, tail = head + width;
  if (out.raw() != x.raw()) {
    move_runs(context, {x, 0, stride}, {out, 0, stride}, x.dim(0), head, GradMode::kOverwrite);
    move_runs(context, {x, tail, stride}, {out, tail, stride}, x.dim(0), stride - tail, GradMode::kOverwrite);
  }
  move_runs(context, {value, 0, width}, {out, head, stride}, x.dim(0), width, GradMode::kOverwrite);
}

void overwrite_token_backward(const Context& context, Tensor dout, int64_t row, Tensor dx, GradMode mode) {
  check_rank("overwrite_token_backward", "dout", dout, context, 3, "(B, T, C)", activation_dtypes(context));
  check_tensor("overwrite_token_backward", "dx", dx, context, dout.shape(), {dout.dtype()});
  check_token("overwrite_token_backward", dout, row);
  check_device("overwrite_token_backward", context);
  const int64_t width = dx.dim(2), stride = dx.dim(1) * width, head = row * width, tail = head + width;
  if (mode == GradMode::kAdd || dx.raw() != dout.raw()) {
    move_runs(context, {dout, 0, stride}, {dx, 0, stride}, dx.dim(0), head, mode);
    move_runs(context, {dout, tail, stride}, {dx, tail, stride}, dx.dim(0), stride - tail, mode);
  }
  if (mode == GradMode::kOverwrite) zero_runs(context, {dx, head, stride}, dx.dim(0), width);
}

}  // namespace permafrost
