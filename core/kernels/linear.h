#pragma once
#include <string>

#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/kernels/vector_math.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Linear layer, forward: y = activation(x W^T + bias).
/// x:      (M, K)  f32 or bf16
/// weight: (N, K)  dtype of x; under f32 compute also bf16 or f16, converted exactly block by block
/// bias:   (N)     f32, on CUDA also dtype of y; undefined = none
/// y:      (M, N)  dtype of x, or f32 when x is bf16 (logits)
/// pre:    (M, N)  dtype of y: x W^T + bias before the activation, kept for backward; undefined = not kept
/// Accumulates over K in f32, first to last, in one order that depends on K alone: the same bits for any thread count,
/// any number of rows beside it and any place in memory. The activation is applied to the f32 sum, not to the stored
/// `pre`. bf16 products on AMX treat denormal inputs and partial sums as zero, as the instruction does. y and pre must
/// not overlap each other or an input. Workspace: linear_workspace_bytes, any content, any alignment. Errors:
/// ShapeMismatch (shape, dtype, device), InvalidArgument (workspace too small), NotBuilt (a device this build lacks).
///
/// On CUDA products are cuBLASLt's. Their order of sums follows from the whole shape, dtypes, alignment up to 16 bytes,
/// device and version of the library, and from what tune_linear chose or use_product_choices gave: the same bits on
/// every run, but not for another number of rows. Products that the library has no algorithm for (odd widths in bf16,
/// perhaps) are summed first term to last. Where y is bf16, the library adds a bias that was rounded to bf16 (and may
/// be given so), and activations are applied to the stored bf16 sum; the activation's slope in backward is then that of
/// the same number. Queue::tf32 lets f32 products round their operands (allow_tf32 in cuda.h).
struct LinearForward {
  Tensor x, weight, bias, y, pre;
  Activation activation = Activation::kNone;
};
void linear_forward(const Context& context, const LinearForward& args, Tensor workspace);

/// Linear layer, gradient of the input: dx = dy W (overwritten or added).
/// dy: (M, N) f32 or bf16;  weight: (N, K) as above;  dx: (M, K) dtype of dy.
/// Accumulates over N as forward does over K; kAdd adds the finished f32 sum to dx and rounds once; on
/// CUDA, cuBLASLt may round the sum to the dtype of dx first.
struct LinearBackwardInput {
  Tensor dy, weight, dx;
  GradMode mode = GradMode::kOverwrite;
};
void linear_backward_input(const Context& context, const LinearBackwardInput& args, Tensor workspace);

/// Linear layer, gradients of the parameters: dweight = dy^T x, dbias = column sums of dy.
/// x: (M, K), dy: (M, N) f32 or bf16, of one dtype;  dweight: (N, K) f32, dbias: (N) f32; either may be undefined
/// (frozen). x may be undefined when dweight is.
/// Accumulates over M, first row to last (dbias: by chunks of 256 rows; on CUDA, whole chunks by parts of 32). Without
/// dweight, CUDA needs the workspace of k = 0 for more than 256 rows, and CPU none.
struct LinearBackwardWeight {
  Tensor x, dy, dweight, dbias;
  GradMode dweight_mode = GradMode::kOverwrite, dbias_mode = GradMode::kOverwrite;
};
void linear_backward_weight(const Context& context, const LinearBackwardWeight& args, Tensor workspace);

enum class LinearPass { kForward, kBackwardInput, kBackwardWeight };
/// Upper bound of the workspace of a pass, for `threads` threads at most (which mean nothing on CUDA). A pure function
/// of its arguments: the same on every processor and in every build.
int64_t linear_workspace_bytes(LinearPass pass, int64_t m, int64_t n, int64_t k, DType compute, DType weight,
                               int threads, DeviceKind device = DeviceKind::kCpu);

/// On CUDA: times the algorithms that compute this call, once for its shape, and stays with the fastest wherever the
/// context's stream meets the shape again. To be done before the first step, since results may change in their last
/// bits; outputs hold anything afterwards. On CPU: only checks. Errors: as the call's; InvalidArgument while the stream
/// is captured into a graph.
void tune_linear(const Context& context, const LinearForward& args, Tensor workspace);
void tune_linear(const Context& context, const LinearBackwardInput& args, Tensor workspace);
void tune_linear(const Context& context, const LinearBackwardWeight& args, Tensor workspace);

/// For the record of a run: the library's version and what it computes each shape with that the context's stream has
/// met, one a line. Empty on CPU.
std::string linear_choices(const Context& context);

}  // namespace permafrost
