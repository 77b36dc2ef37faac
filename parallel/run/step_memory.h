#pragma once
#include "core/device/buffer.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// The memory that the programs of a plan run in, one buffer per region, sized by the plan. Everything is allocated
/// here, before the first step.
struct StepMemory {
  Buffer arena, inputs, state, frozen, working;

  explicit StepMemory(const Plan& plan, Device device = Device::cpu());

  std::byte* region(Region region) const;
  /// The tensor that a reference means here; undefined for Region::kNone.
  Tensor tensor(const TensorRef& ref) const;
  /// Where a parameter is stored: frozen, or its working copy.
  Tensor param(const ParamPlan& param) const;
};

}  // namespace permafrost
