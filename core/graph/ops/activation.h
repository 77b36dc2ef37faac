#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// y = f(x), elementwise; kNone gives x itself. (A linear layer takes its activation along: see linear.h.)
Value activation(Graph& graph, Value x, Activation kind);

}  // namespace permafrost
