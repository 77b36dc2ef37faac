#pragma once
#include "core/kernels/shape_ops.h"

/// Arithmetic of shape_ops.h on CPU; arguments are checked already.
namespace permafrost::cpu {

void add_forward(const Context& context, Tensor a, Tensor b, Tensor out);
void accumulate(const Context& context, Tensor src, Tensor dst, GradMode mode);
void sum_leading(const Context& context, Tensor src, Tensor dst, GradMode mode);
void broadcast_leading(const Context& context, Tensor src, Tensor dst);

/// A rectangle inside a row-major matrix: `rows` runs of `run` elements, `stride` elements apart.
struct Runs {
  Tensor tensor;
  int64_t offset = 0, stride = 0;
};
/// target = or += source, run by run.
void move_runs(const Context& context, const Runs& source, const Runs& target, int64_t rows, int64_t run,
               GradMode mode);
/// Zeroes `rows` runs of `run` elements.
void zero_runs(const Context& context, const Runs& target, int64_t rows, int64_t run);

}  // namespace permafrost::cpu
