#include "core/kernels/dropout.h"

#include "core/kernels/dropout_cpu.h"
#include "core/kernels/dropout_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

void dropout(const Context& context, Tensor x, Tensor address, uint32_t layer, float p, Tensor out, GradMode mode) {
  check_dtype("dropout", "x", x, context, activation_dtypes(context));
  if (x.shape().rank() < 1) fail(ErrorKind::kShapeMismatch, "dropout: x must have a batch axis; got ", x.spec());
  check_tensor("dropout", "out", out, context, x.shape(), {x.dtype()});
  check_tensor("dropout", "address", address, context, {2 + x.dim(0)}, {DType::kI64});
  PERMAFROST_CHECK(p >= 0 && p < 1, "dropout: p must lie in [0, 1); got ", p);
  PERMAFROST_CHECK(x.dim(0) == 0 || x.elements() / x.dim(0) <= int64_t{1} << 34,
                   "dropout: a sample must have at most 2^34 elements; got ", x.spec());
  check_device("dropout", context);
  if (on_cuda(context)) return cuda::dropout(context, x, address, layer, p, out, mode);
  const int64_t epoch = address.data<int64_t>()[1];
  PERMAFROST_CHECK(epoch >= 0 && epoch <= UINT32_MAX, "dropout: epoch must fit 32 bits; got ", epoch);
  cpu::dropout(context, x, address, layer, p, out, mode);
}

}  // namespace permafrost
