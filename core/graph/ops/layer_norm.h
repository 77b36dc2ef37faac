#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// Layer normalisation over the last axis. x: (..., C); gain, bias: (C); y: like x.
Value layer_norm(Graph& graph, Value x, Param gain, Param bias, float eps);

}  // namespace permafrost
