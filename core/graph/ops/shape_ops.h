#pragma once
#include <vector>

#include "core/graph/graph.h"

namespace permafrost {

/// a + b, same shape.
Value add(Graph& graph, Value a, Value b);
/// x (B, T, C) + table (T, C) or (1, T, C), the same for every sample.
Value add_param(Graph& graph, Value x, Param table);
/// x * scale, scale a parameter of one element (shape (1)): scaled parallel adapters.
Value scale_by_param(Graph& graph, Value x, Param scale);
/// A parameter (1, T, C) or (T, C) repeated for `batch` samples: (batch, T, C) in the compute dtype.
Value broadcast_param(Graph& graph, Param param, int64_t batch);
/// A value (T, C) repeated for `batch` samples: (batch, T, C).
Value broadcast(Graph& graph, Value x, int64_t batch);
/// A parameter (T, C) as a value (T, C) in the compute dtype.
Value param_value(Graph& graph, Param param);
/// Concatenation of (B, T_i, C) along the tokens.
Value concat_tokens(Graph& graph, const std::vector<Value>& parts);
/// x (B, T, C) -> (B, end - begin, C).
Value slice_tokens(Graph& graph, Value x, int64_t begin, int64_t end);
/// x (B, T, C) with token `row` replaced by value (B, 1, C); the gradient into the old token is cut.
Value overwrite_token(Graph& graph, Value x, Value value, int64_t row);

}  // namespace permafrost
