#pragma once
#include <string>
#include <vector>

#include "core/graph/graph.h"

namespace permafrost {

/// What freezing switches off for an operation or a unit (design, section 3).
enum class FreezeClass : uint8_t {
  kPrefix,       ///< frozen, nothing trainable upstream: forward only, saves nothing
  kPassThrough,  ///< frozen, something trainable upstream: dX
  kFirst,        ///< trainable, nothing trainable upstream: dW, no dX
  kInner,        ///< trainable and something trainable upstream: both
};
std::string_view to_string(FreezeClass freeze_class);

/// Result of need propagation: which gradients a graph needs, and what of it never changes.
struct NeedAnalysis {
  std::vector<Needs> op_needs;             ///< per operation; empty = backward never runs
  std::vector<FreezeClass> op_class;       ///< per operation
  std::vector<FreezeClass> unit_class;     ///< per unit: the strongest of its operations
  std::vector<bool> value_needs_gradient;  ///< per value: a gradient buffer exists
  /// Per unit: depends on nothing trainable, now or through states, and on no state that changes: could be cached per
  /// sample.
  std::vector<bool> behind_frontier;
  std::vector<std::string> frontier_reason;  ///< per unit: why it is not behind the frontier, in words; empty if it is
};

/// Sweep 1, in execution order: which values have something trainable upstream. Sweep 2, backwards: which of them
/// reach the loss. Without a loss every need is empty. Gradients do not flow through states, so what reads a state
/// written from something trainable needs none on its account; it is in front of the frontier all the same.
NeedAnalysis analyse_needs(const Graph& graph, const std::vector<bool>& trainable);

}  // namespace permafrost
