#include "core/kernels/token_cache.h"

#include "core/kernels/tensor_checks.h"
#include "core/kernels/token_cache_cpu.h"
#include "core/kernels/token_cache_cuda.h"

namespace permafrost {

void write_tokens(const Context& context, Tensor x, Tensor positions, Tensor cache) {
  check_rank("write_tokens", "x", x, context, 3, "(B, t, C)", activation_dtypes(context));
  check_rank("write_tokens", "cache", cache, context, 3, "(R, S, C)", {x.dtype()});
  check_tensor("write_tokens", "positions", positions, context, {x.dim(0)}, {DType::kI32});
  const bool whole = x.dim(0) == 0 ? cache.dim(0) == 0 : cache.dim(0) % x.dim(0) == 0;
  if (!whole || cache.dim(1) < x.dim(1) || cache.dim(2) != x.dim(2))
    fail(ErrorKind::kShapeMismatch, "write_tokens: cache must be (n B, S, C) with S of at least t for x ", x.spec(),
         "; got ", cache.spec());
  check_device("write_tokens", context);
  if (on_cuda(context)) return cuda::write_tokens(context, x, positions, cache);
  cpu::write_tokens(context, x, positions, cache);
}

int64_t select_rows_workspace_bytes(const TensorSpec& cache) { return cache.bytes(); }

void select_rows(const Context& context, Tensor rows, Tensor lengths, Tensor cache, Tensor workspace) {
  check_rank("select_rows", "cache", cache, context, 3, "(R, S, C)", activation_dtypes(context));
  check_tensor("select_rows", "rows", rows, context, {cache.dim(0)}, {DType::kI32});
  check_tensor("select_rows", "lengths", lengths, context, {cache.dim(0)}, {DType::kI32});
  if (workspace.bytes() < select_rows_workspace_bytes(cache.spec()))
    fail(ErrorKind::kShapeMismatch, "select_rows: workspace must have at least ",
         select_rows_workspace_bytes(cache.spec()), " bytes; got ", workspace.bytes());
  check_device("select_rows", context);
  if (on_cuda(context)) return cuda::select_rows(context, rows, lengths, cache, workspace);
  cpu::select_rows(context, rows, lengths, cache, workspace);
}

}  // namespace permafrost
