#include "core/kernels/embedding.h"

#include "core/kernels/embedding_cpu.h"
#include "core/kernels/embedding_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

void embedding_forward(const Context& context, Tensor ids, Tensor table, Tensor out) {
  check_rank("embedding_forward", "ids", ids, context, 1, "(R)", {DType::kI32});
  check_rank("embedding_forward", "table", table, context, 2, "(V, C)", {DType::kF32, DType::kBF16, DType::kF16});
  check_tensor("embedding_forward", "out", out, context, {ids.dim(0), table.dim(1)}, activation_dtypes(context));
  check_device("embedding_forward", context);
  if (on_cuda(context)) return cuda::embedding_forward(context, ids, table, out);
  cpu::embedding_forward(context, ids, table, out);
}

void embedding_backward(const Context& context, Tensor ids, Tensor dout, Tensor dtable, GradMode mode) {
  check_rank("embedding_backward", "ids", ids, context, 1, "(R)", {DType::kI32});
  check_rank("embedding_backward", "dtable", dtable, context, 2, "(V, C)", {DType::kF32});
  check_tensor("embedding_backward", "dout", dout, context, {ids.dim(0), dtable.dim(1)}, activation_dtypes(context));
  check_device("embedding_backward", context);
  if (on_cuda(context)) return cuda::embedding_backward(context, ids, dout, dtable, mode);
  cpu::embedding_backward(context, ids, dout, dtable, mode);
}

}  // namespace permafrost
