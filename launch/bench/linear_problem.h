#pragma once
#include "core/device/context.h"
#include "core/kernels/linear.h"
#include "launch/bench/timing.h"

namespace permafrost::bench {

/// Owns a tensor of uniform random values in [-1, 1): zeros would let the processor clock higher.
struct Matrix {
  Matrix(const char* name, DType dtype, const Shape& shape)
      : buffer(name, TensorSpec{shape, dtype}.bytes()), tensor(buffer.data(), dtype, shape) {
    fill_uniform(tensor);
  }
  Buffer buffer;
  Tensor tensor;
};

/// One pass of a linear layer, and what it works on.
struct Problem {
  Problem(int64_t m, int64_t n, int64_t k, DType dtype, LinearPass pass, int threads)
      : m(m),
        n(n),
        k(k),
        dtype(dtype),
        pass(pass),
        x("x", dtype, {m, k}),
        weight("weight", dtype, {n, k}),
        y("y", dtype, {m, n}),
        bias("bias", DType::kF32, {n}),
        dweight("dweight", DType::kF32, {pass == LinearPass::kBackwardWeight ? n : 0, k}),
        workspace("workspace", linear_workspace_bytes(pass, m, n, k, dtype, dtype, threads)) {}

  void run_ours(const Context& context) const {
    const Tensor scratch(workspace.data(), DType::kU8, {workspace.bytes()});
    switch (pass) {
      case LinearPass::kForward:
        return linear_forward(
            context, {.x = x.tensor, .weight = weight.tensor, .bias = bias.tensor, .y = y.tensor, .pre = {}}, scratch);
      case LinearPass::kBackwardInput:
        return linear_backward_input(context, {.dy = y.tensor, .weight = weight.tensor, .dx = x.tensor}, scratch);
      case LinearPass::kBackwardWeight:
        return linear_backward_weight(context, {.x = x.tensor, .dy = y.tensor, .dweight = dweight.tensor, .dbias = {}},
                                      scratch);
    }
  }

  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }

  int64_t m, n, k;
  DType dtype;
  LinearPass pass;
  Matrix x, weight, y, bias, dweight;
  Buffer workspace;
};

}  // namespace permafrost::bench
