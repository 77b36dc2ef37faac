#include "core/kernels/layer_norm.h"

#include <algorithm>
#include <string_view>

#include "core/base/narrow.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/layer_norm_chunks.h"
#include "core/kernels/layer_norm_cpu.h"
#include "core/kernels/layer_norm_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {
constexpr int64_t kBlockElements = 16384;  // of rows handed out together
constexpr int64_t kCombineColumns = 256;

template <typename T>
T* row_pointer(const Tensor& tensor, int64_t row, int64_t width, int64_t element_bytes) {
  if (!tensor.defined()) return nullptr;
  return reinterpret_cast<T*>(static_cast<std::byte*>(tensor.raw()) + row * width * element_bytes);
}

/// Adds the chunks' sums, in order, and writes or adds them to the gradient. A chunk's sums lie at
/// partial[chunk * stride + first].
void combine_chunks(const Context& context, const Tensor& gradient, GradMode mode, const float* partial, int64_t chunks,
                    int64_t stride, int64_t first) {
  if (!gradient.defined()) return;
  float* out = gradient.data<float>();
  const int64_t width = gradient.dim(0);
  context.pool->run(div_up(width, kCombineColumns), [&](int64_t block, int) {
    const int64_t begin = block * kCombineColumns, end = std::min(width, begin + kCombineColumns);
    float sum[kCombineColumns] = {};
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t i = begin; i < end; ++i) sum[i - begin] += partial[chunk * stride + first + i];
    for (int64_t i = begin; i < end; ++i) out[i] = mode == GradMode::kAdd ? out[i] + sum[i - begin] : sum[i - begin];
  });
}

/// x = a + b of some rows.
void add_rows(const LayerNormForward& args, int64_t begin, int64_t rows) {
  const int64_t width = args.x.dim(1), first = begin * width;
  const DType dtype = args.x.dtype();
  cpu::element_loops().add(dtype, cpu::at(args.a, first), dtype, cpu::at(args.b, first), cpu::at(args.x, first),
                           rows * width);
}

void check_sum(std::string_view op, const Context& context, const LayerNormForward& args) {
  PERMAFROST_CHECK(args.a.defined() == args.b.defined(), op, ": a and b must be given both or not at all; got ",
                   args.a ? "a" : "b", " alone");
  if (!args.a) return;
  check_tensor(op, "a", args.a, context, args.x.shape(), {args.x.dtype()});
  check_tensor(op, "b", args.b, context, args.x.shape(), {args.x.dtype()});
}

void check_backward(const Context& context, const LayerNormBackward& args) {
  constexpr std::string_view kOp = "layer_norm_backward";
  check_rank(kOp, "dy", args.dy, context, 2, "(R, C)", activation_dtypes(context));
  const Shape rows{args.dy.dim(0)}, width{args.dy.dim(1)};
  check_tensor(kOp, "x", args.x, context, args.dy.shape(), {args.dy.dtype()});
  if (args.dx) check_tensor(kOp, "gain", args.gain, context, width, {DType::kF32});
  check_tensor(kOp, "mean", args.mean, context, rows, {DType::kF32});
  check_tensor(kOp, "rstd", args.rstd, context, rows, {DType::kF32});
  if (args.dx) check_tensor(kOp, "dx", args.dx, context, args.dy.shape(), {args.dy.dtype()});
  if (args.dgain) check_tensor(kOp, "dgain", args.dgain, context, width, {DType::kF32});
  if (args.dbias) check_tensor(kOp, "dbias", args.dbias, context, width, {DType::kF32});
  check_device(kOp, context);
}
}  // namespace

void layer_norm_forward_at(SimdLevel level, const Context& context, const LayerNormForward& args) {
  constexpr std::string_view kOp = "layer_norm_forward";
  check_rank(kOp, "x", args.x, context, 2, "(R, C)", activation_dtypes(context));
  const int64_t rows = args.x.dim(0), width = args.x.dim(1);
  check_tensor(kOp, "gain", args.gain, context, {width}, {DType::kF32});
  check_tensor(kOp, "bias", args.bias, context, {width}, {DType::kF32});
  check_tensor(kOp, "y", args.y, context, args.x.shape(), {args.x.dtype()});
  if (args.mean) check_tensor(kOp, "mean", args.mean, context, {rows}, {DType::kF32});
  if (args.rstd) check_tensor(kOp, "rstd", args.rstd, context, {rows}, {DType::kF32});
  if ((args.mean || args.rstd) && args.y.raw() == args.x.raw() && args.x.elements() > 0)
    fail(ErrorKind::kShapeMismatch, kOp, ": y must not be x when mean or rstd is kept; got the same memory");
  check_sum(kOp, context, args);
  check_device(kOp, context);
  if (rows == 0 || width == 0) return;
  if (on_cuda(context)) return cuda::layer_norm_forward(context, args);

  const int64_t bytes = size_of(args.x.dtype());
  const int64_t block_rows = std::max<int64_t>(1, kBlockElements / width);
  context.pool->run(div_up(rows, block_rows), [&](int64_t block, int) {
    const int64_t begin = block * block_rows, some = std::min(block_rows, rows - begin);
    if (args.a) add_rows(args, begin, some);
    layer_norm_forward_cpu({.bf16 = args.x.dtype() == DType::kBF16,
                            .x = row_pointer<void>(args.x, begin, width, bytes),
                            .gain = args.gain.data<float>(),
                            .bias = args.bias.data<float>(),
                            .y = row_pointer<void>(args.y, begin, width, bytes),
                            .mean = row_pointer<float>(args.mean, begin, 1, 4),
                            .rstd = row_pointer<float>(args.rstd, begin, 1, 4),
                            .rows = some,
                            .width = width,
                            .eps = args.eps},
                           level);
  });
}

int64_t layer_norm_workspace_bytes(int64_t rows, int64_t width, bool parameter_gradients) {
  return parameter_gradients ? layer_norm_chunks(rows) * 2 * layer_norm_sum_stride(width) * size_of(DType::kF32) : 0;
}

void layer_norm_backward_at(SimdLevel level, const Context& context, const LayerNormBackward& args, Tensor workspace) {
  check_backward(context, args);
  const int64_t rows = args.dy.dim(0), width = args.dy.dim(1);
  const bool parameters = args.dgain || args.dbias;
  const int64_t needed = layer_norm_workspace_bytes(rows, width, parameters);
  if (workspace.bytes() < needed)
    fail(ErrorKind::kShapeMismatch, "layer_norm_backward: workspace must have at least ", needed, " bytes; got ",
         workspace.bytes());
  if (width == 0 || !(parameters || args.dx)) return;
  if (on_cuda(context)) return cuda::layer_norm_backward(context, args, workspace);

  const int64_t bytes = size_of(args.dy.dtype()), stride = layer_norm_sum_stride(width);
  const int64_t block_rows = parameters ? layer_norm_chunk_rows(rows) : std::max<int64_t>(1, kBlockElements / width);
  float* partial = static_cast<float*>(workspace.raw());
  context.pool->run(div_up(rows, block_rows), [&](int64_t block, int) {
    const int64_t begin = block * block_rows;
    layer_norm_backward_cpu({.bf16 = args.dy.dtype() == DType::kBF16,
                             .dy = row_pointer<void>(args.dy, begin, width, bytes),
                             .x = row_pointer<void>(args.x, begin, width, bytes),
                             .gain = args.dx ? args.gain.data<float>() : nullptr,
                             .mean = row_pointer<float>(args.mean, begin, 1, 4),
                             .rstd = row_pointer<float>(args.rstd, begin, 1, 4),
                             .dx = row_pointer<void>(args.dx, begin, width, bytes),
                             .add_dx = args.dx_mode == GradMode::kAdd,
                             .dgain = args.dgain ? partial + 2 * block * stride : nullptr,
                             .dbias = args.dbias ? partial + (2 * block + 1) * stride : nullptr,
                             .rows = std::min(block_rows, rows - begin),
                             .width = width},
                            level);
  });
  combine_chunks(context, args.dgain, args.dgain_mode, partial, layer_norm_chunks(rows), 2 * stride, 0);
  combine_chunks(context, args.dbias, args.dbias_mode, partial, layer_norm_chunks(rows), 2 * stride, stride);
}

void layer_norm_forward(const Context& context, const LayerNormForward& args) {
  layer_norm_forward_at(simd_level(), context, args);
}

void layer_norm_backward(const Context& context, const LayerNormBackward& args, Tensor workspace) {
  layer_norm_backward_at(simd_level(), context, args, workspace);
}

}  // namespace permafrost
