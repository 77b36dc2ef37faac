#pragma once
#include <vector>

#include "core/graph/graph.h"

namespace permafrost {

/// n linear layers of one input, side by side: y = [x W_0^T + b_0, ..., x W_{n-1}^T + b_{n-1}].  x: (..., K);  weights:
/// (N, K) each;  biases: (N) each, or none at all;  y: (..., n N) compute dtype.
///
/// Where the plan puts the weights one behind the other, in one dtype (ForwardArgs::adjoining), forward is one product
/// with all of them, and so is the gradient of x, whose sums then have n N terms instead of being n sums of N, each
/// rounded before the next is added. Other weights are multiplied one by one, also if they touch in memory by chance:
/// the same values, but for the order in which they are summed.
/// Parameters of a unit lie in the order in which they are declared, so declare the weights in a row and the biases
/// behind them: then the plan puts them together where all are frozen or all are trainable and N K fills whole steps of
/// its alignment. Whether it does follows from names, shapes and freezing alone. A unit keeps its places within itself
/// wherever it lies, at rest or in a slot, and addresses decide nothing, so bits depend neither on the number of ranks
/// nor on who holds what.
///
/// Errors: ShapeMismatch (x, weights or biases that do not fit); InvalidArgument (no weights, more than 16, or another
/// number of biases than of weights).
Value joined_linear(Graph& graph, Value x, const std::vector<Param>& weights, const std::vector<Param>& biases = {});

}  // namespace permafrost
