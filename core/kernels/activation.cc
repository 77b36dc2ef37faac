#include "core/kernels/activation.h"

#include <algorithm>
#include <string_view>

#include "core/base/narrow.h"
#include "core/kernels/activation_cpu.h"
#include "core/kernels/activation_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {
constexpr int64_t kBlock = 16384;  // elements: long enough to hide the hand-out, short enough to share evenly

std::byte* at(const Tensor& tensor, int64_t element) {
  return static_cast<std::byte*>(tensor.raw()) + element * size_of(tensor.dtype());
}
}  // namespace

bool activation_keeps_output(Activation activation) {
  return activation == Activation::kRelu || activation == Activation::kTanh;
}

void activation_forward_at(SimdLevel level, const Context& context, Activation activation, Tensor x, Tensor y) {
  constexpr std::string_view kOp = "activation_forward";
  check_dtype(kOp, "x", x, context, activation_dtypes(context));
  check_tensor(kOp, "y", y, context, x.shape(), {x.dtype()});
  check_device(kOp, context);
  if (on_cuda(context)) return cuda::activation_forward(context, activation, x, y);
  const int64_t n = x.elements();
  context.pool->run(div_up(n, kBlock), [&](int64_t block, int) {
    const int64_t begin = block * kBlock, count = std::min(kBlock, n - begin);
    activation_forward_cpu(activation, x.dtype(), at(x, begin), at(y, begin), count, level);
  });
}

void activation_backward_at(SimdLevel level, const Context& context, Activation activation, Tensor kept, Tensor dy,
                            Tensor dx, GradMode mode) {
  constexpr std::string_view kOp = "activation_backward";
  check_dtype(kOp, "kept", kept, context, activation_dtypes(context));
  check_tensor(kOp, "dy", dy, context, kept.shape(), {kept.dtype()});
  check_tensor(kOp, "dx", dx, context, kept.shape(), {kept.dtype()});
  check_device(kOp, context);
  if (on_cuda(context)) return cuda::activation_backward(context, activation, kept, dy, dx, mode);
  const int64_t n = kept.elements();
  context.pool->run(div_up(n, kBlock), [&](int64_t block, int) {
    const int64_t begin = block * kBlock, count = std::min(kBlock, n - begin);
    activation_backward_cpu(activation, kept.dtype(), at(kept, begin), at(dy, begin), at(dx, begin), count, mode,
                            level);
  });
}

void activation_forward(const Context& context, Activation activation, Tensor x, Tensor y) {
  activation_forward_at(simd_level(), context, activation, x, y);
}

void activation_backward(const Context& context, Activation activation, Tensor kept, Tensor dy, Tensor dx,
                         GradMode mode) {
  activation_backward_at(simd_level(), context, activation, kept, dy, dx, mode);
}

}  // namespace permafrost
