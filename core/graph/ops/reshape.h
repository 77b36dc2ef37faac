#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// The elements of x, in order, as another shape of as many elements. A copy: meant for small values.
Value reshape(Graph& graph, Value x, const Shape& shape);

}  // namespace permafrost
