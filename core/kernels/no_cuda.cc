#include "core/base/check.h"
#include "core/kernels/activation_cuda.h"
#include "core/kernels/attention_cuda.h"

// A build without CUDA. Kernels check their context first (check_device), so nobody comes here.
namespace permafrost::cuda {

namespace {
[[noreturn]] void absent() { fail(ErrorKind::kNotBuilt, "kernels: this build has no CUDA backend"); }
}  // namespace

void activation_forward(const Context&, Activation, Tensor, Tensor) { absent(); }
void activation_backward(const Context&, Activation, Tensor, Tensor, Tensor, GradMode) { absent(); }
void attention_forward(const Context&, const AttentionCall&) { absent(); }
void attention_backward(const Context&, const AttentionCall&, void*) { absent(); }

}  // namespace permafrost::cuda
