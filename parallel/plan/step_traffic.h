#pragma once
#include <cstddef>
#include <cstdint>

#include "parallel/plan/plan.h"

namespace permafrost {

/// What one step of a program does.
struct StepWork {
  double frozen_flops = 0;     ///< of operations without trainable parameters, and of others what is not due to those
  double trainable_flops = 0;  ///< due to trainable parameters: of weights that share a product, to each its part
  /// Read from and written to memory: the tensors that the step names, those that it adds to twice; of an embedding's
  /// table the rows that are taken. A gradient that is passed on in place costs nothing, workspaces are not counted.
  int64_t bytes = 0;
};

/// Of a kForward step: its operation's, and those of one that comes along.
double forward_flops(const Graph& graph, const PlanStep& step);

/// step: of the program of this bucket.
StepWork step_work(const Plan& plan, size_t bucket, const PlanStep& step);

}  // namespace permafrost
