#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// Updates of states (R, S, C) that hold tokens of growing texts, and what is read of texts of different lengths.
/// Forward alone: nothing here passes a gradient on. Meanings: core/kernels/token_cache.h.

/// Writes x (B, t, C) from token positions[b] on into the R / B rows of the state that belong to each b.
/// positions: (B) i32. What is not written stays.
void write_tokens(Graph& graph, Value state, Value x, Value positions);

/// state[r, :lengths[r]] = what was state[rows[r], :lengths[r]]. rows, lengths: (R) i32.
void select_rows(Graph& graph, Value state, Value rows, Value lengths);

/// Rows of x (..., C), numbered over all its leading axes, as (n, 1, C). rows: (n) i32.
Value gather_rows(Graph& graph, Value x, Value rows);

}  // namespace permafrost
