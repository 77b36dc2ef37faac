#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// y = activation(x W^T + b) on the last axis.  x: (..., K);  weight: (N, K) or any shape of N rows and K values per
/// row (a patch convolution);  bias: (N) or Param{} = none;  y: (..., N) compute dtype, or f32 when `wide_output`.
Value linear(Graph& graph, Value x, Param weight, Param bias = {}, Activation activation = Activation::kNone,
             bool wide_output = false);

}  // namespace permafrost
