#pragma once
#include "core/device/buffer.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// The memory that the programs of a plan run in, one buffer per region, sized by the plan. Everything is allocated
/// here, before the first step.
struct StepMemory {
  int rank = 0;
  FrozenLayout layout;
  Buffer arena, inputs, state, slots, working;
  Buffer frozen;  ///< what this node has of the frozen space; seen by all its ranks

  explicit StepMemory(const Plan& plan, int rank = 0);

  /// The tensor that a reference means here; undefined for Region::kNone.
  Tensor tensor(const TensorRef& ref) const;
  /// Where a parameter is stored: frozen (its unit must be on this node as a whole), or its working copy.
  Tensor param(const ParamPlan& param) const;

 private:
  std::byte* address(Region region, int64_t offset) const;
};

}  // namespace permafrost
