#include "core/base/check.h"
#include "core/kernels/activation_cuda.h"
#include "core/kernels/adamw_cuda.h"
#include "core/kernels/attention_cuda.h"
#include "core/kernels/combine_ranks_cuda.h"
#include "core/kernels/cross_entropy_cuda.h"
#include "core/kernels/dropout_cuda.h"
#include "core/kernels/embedding_cuda.h"
#include "core/kernels/layer_norm_cuda.h"
#include "core/kernels/linear_cuda.h"
#include "core/kernels/matmul_cuda.h"
#include "core/kernels/order_free_cuda.h"
#include "core/kernels/patchify_cuda.h"
#include "core/kernels/plain_matmul_cuda.h"
#include "core/kernels/scale_cuda.h"
#include "core/kernels/shape_ops_cuda.h"
#include "core/kernels/token_cache_cuda.h"

// A build without CUDA. Kernels check their context first (check_device), so nobody comes here.
namespace permafrost::cuda {

namespace {
[[noreturn]] void absent() { fail(ErrorKind::kNotBuilt, "kernels: this build has no CUDA backend"); }
}  // namespace

void activation_forward(const Context&, Activation, Tensor, Tensor) { absent(); }
void activation_backward(const Context&, Activation, Tensor, Tensor, Tensor, GradMode) { absent(); }
void attention_forward(const Context&, const AttentionCall&, void*) { absent(); }
void attention_backward(const Context&, const AttentionCall&, void*) { absent(); }
std::string why_no_cudnn(const Context&) { absent(); }
std::vector<AttentionChoice> attention_choices(const Context&) { absent(); }

void combine_ranks(const Context&, RankReduction, DType, const RankPieces&, void*, int64_t) { absent(); }

void dropout(const Context&, Tensor, Tensor, uint32_t, float, Tensor, GradMode) { absent(); }

void embedding_forward(const Context&, Tensor, Tensor, Tensor) { absent(); }
void embedding_backward(const Context&, Tensor, Tensor, Tensor, GradMode) { absent(); }

void patchify_forward(const Context&, Tensor, int64_t, Tensor) { absent(); }
void patchify_backward(const Context&, Tensor, int64_t, Tensor, GradMode) { absent(); }

void scale(const Context&, Tensor, Tensor, Tensor, GradMode) { absent(); }
void dot(const Context&, Tensor, Tensor, Tensor, GradMode, double*) { absent(); }

void add_forward(const Context&, Tensor, Tensor, Tensor) { absent(); }
void accumulate(const Context&, Tensor, Tensor, GradMode) { absent(); }
void sum_leading(const Context&, Tensor, Tensor, GradMode) { absent(); }
void broadcast_leading(const Context&, Tensor, Tensor) { absent(); }
void move_runs(const Context&, const Runs&, const Runs&, int64_t, int64_t, GradMode) { absent(); }
void zero_runs(const Context&, const Runs&, int64_t, int64_t) { absent(); }

void write_tokens(const Context&, Tensor, Tensor, Tensor) { absent(); }
void select_rows(const Context&, Tensor, Tensor, Tensor, Tensor) { absent(); }

void linear_forward(const Context&, const LinearForward&, Tensor) { absent(); }
void linear_backward_input(const Context&, const LinearBackwardInput&, Tensor) { absent(); }
void linear_backward_weight(const Context&, const LinearBackwardWeight&, Tensor) { absent(); }
void tune_linear(const Context&, const LinearForward&, Tensor) { absent(); }
void tune_linear(const Context&, const LinearBackwardInput&, Tensor) { absent(); }
void tune_linear(const Context&, const LinearBackwardWeight&, Tensor) { absent(); }

void plain_multiply(const Context&, const MatrixProduct&) { absent(); }
std::string matmul_library() { absent(); }
std::vector<ProductChoice> matmul_choices(const Context&) { absent(); }
void use_matmul_choices(const Context&, std::span<const ProductChoice>) { absent(); }
void set_matmul_tuning(const Context&, bool) { absent(); }

void adamw(const Context&, const AdamwStep&, Tensor, Tensor, Tensor, Tensor, Tensor) { absent(); }
void adamw_pieces(const Context&, const AdamwPieces&) { absent(); }

void cross_entropy_forward(const Context&, Tensor, Tensor, float, Tensor, Tensor) { absent(); }
void cross_entropy_backward(const Context&, Tensor, Tensor, Tensor, Tensor, float, Tensor) { absent(); }
void weighted_sum(const Context&, Tensor, Tensor, Tensor) { absent(); }

void layer_norm_forward(const Context&, const LayerNormForward&) { absent(); }
void layer_norm_backward(const Context&, const LayerNormBackward&, Tensor) { absent(); }

void order_free_add(const Context&, Tensor, Tensor, Tensor, GradMode, Tensor) { absent(); }
void gradient_range(const Context&, Tensor, Tensor) { absent(); }
void order_free_value(const Context&, OrderFreeScale, Tensor, Tensor) { absent(); }
void order_free_values(const Context&, Tensor, Tensor, Tensor, Tensor) { absent(); }
void plain_add(const Context&, Tensor, Tensor, GradMode, Tensor) { absent(); }
void block_square_sums(const Context&, Tensor, Tensor) { absent(); }
void norm_of_blocks(const Context&, Tensor, double, Tensor, Tensor, Tensor) { absent(); }

}  // namespace permafrost::cuda
