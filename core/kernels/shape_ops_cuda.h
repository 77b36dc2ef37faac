#pragma once
#include "core/kernels/runs.h"
#include "core/kernels/shape_ops.h"

/// Arithmetic of shape_ops.h on CUDA; arguments are checked already. The same bits as on CPU.
namespace permafrost::cuda {

void add_forward(const Context& context, Tensor a, Tensor b, Tensor out);
void accumulate(const Context& context, Tensor src, Tensor dst, GradMode mode);
void sum_leading(const Context& context, Tensor src, Tensor dst, GradMode mode);
void broadcast_leading(const Context& context, Tensor src, Tensor dst);
/// target = or += source, `rows` runs of `run` elements.
void move_runs(const Context& context, const Runs& source, const Runs& target, int64_t rows, int64_t run,
               GradMode mode);
/// Zeroes `rows` runs of `run` elements.
void zero_runs(const Context& context, const Runs& target, int64_t rows, int64_t run);

}  // namespace permafrost::cuda
