#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// Inverted dropout with probability p. x: (B, ...); address: (2 + B) i64 input (see core/kernels/dropout.h); `layer`
/// must differ between uses. p = 0 gives x itself.
Value dropout(Graph& graph, Value x, Value address, uint32_t layer, float p);

}  // namespace permafrost
