#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// Rows of a table. ids: (...) i32; table: (V, C); out: (..., C) in the compute dtype.
Value embedding(Graph& graph, Value ids, Param table);

}  // namespace permafrost
