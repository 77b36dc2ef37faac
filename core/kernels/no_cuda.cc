#include "core/base/check.h"
#include "core/kernels/activation_cuda.h"
#include "core/kernels/linear_cuda.h"

// A build without CUDA. Kernels check their context first (check_device), so nobody comes here.
namespace permafrost::cuda {

namespace {
[[noreturn]] void absent() { fail(ErrorKind::kNotBuilt, "kernels: this build has no CUDA backend"); }
}  // namespace

void activation_forward(const Context&, Activation, Tensor, Tensor) { absent(); }
void activation_backward(const Context&, Activation, Tensor, Tensor, Tensor, GradMode) { absent(); }

void linear_forward(const Context&, const LinearForward&, Tensor) { absent(); }
void linear_backward_input(const Context&, const LinearBackwardInput&, Tensor) { absent(); }
void linear_backward_weight(const Context&, const LinearBackwardWeight&, Tensor) { absent(); }
void tune_linear(const Context&, const LinearForward&, Tensor) { absent(); }
void tune_linear(const Context&, const LinearBackwardInput&, Tensor) { absent(); }
void tune_linear(const Context&, const LinearBackwardWeight&, Tensor) { absent(); }
std::string linear_choices(const Context&) { absent(); }

}  // namespace permafrost::cuda
