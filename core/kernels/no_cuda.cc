#include "core/base/check.h"
#include "core/kernels/activation_cuda.h"
#include "core/kernels/adamw_cuda.h"
#include "core/kernels/cross_entropy_cuda.h"
#include "core/kernels/layer_norm_cuda.h"
#include "core/kernels/order_free_cuda.h"

// A build without CUDA. Kernels check their context first (check_device), so nobody comes here.
namespace permafrost::cuda {

namespace {
[[noreturn]] void absent() { fail(ErrorKind::kNotBuilt, "kernels: this build has no CUDA backend"); }
}  // namespace

void activation_forward(const Context&, Activation, Tensor, Tensor) { absent(); }
void activation_backward(const Context&, Activation, Tensor, Tensor, Tensor, GradMode) { absent(); }

void adamw(const Context&, const AdamwStep&, Tensor, Tensor, Tensor, Tensor, Tensor) { absent(); }

void cross_entropy_forward(const Context&, Tensor, Tensor, float, Tensor, Tensor) { absent(); }
void cross_entropy_backward(const Context&, Tensor, Tensor, Tensor, Tensor, float, Tensor) { absent(); }
void weighted_sum(const Context&, Tensor, Tensor, Tensor) { absent(); }

void layer_norm_forward(const Context&, const LayerNormForward&) { absent(); }
void layer_norm_backward(const Context&, const LayerNormBackward&, Tensor) { absent(); }

void order_free_add(const Context&, OrderFreeScale, Tensor, Tensor, GradMode, Tensor) { absent(); }
void gradient_range(const Context&, Tensor, Tensor) { absent(); }
void order_free_value(const Context&, OrderFreeScale, Tensor, Tensor) { absent(); }
void plain_add(const Context&, Tensor, Tensor, GradMode, Tensor) { absent(); }
void block_square_sums(const Context&, Tensor, Tensor) { absent(); }

}  // namespace permafrost::cuda
