#pragma once
#include <memory>
#include <span>
#include <vector>

#include "launch/runtime.h"
#include "parallel/plan/plan.h"
#include "parallel/run/step_memory.h"

namespace permafrost {

/// Bytes of each rank's part of the working copies.
std::vector<int64_t> working_bytes_per_rank(const Plan& plan);

/// Brings the parts of all ranks, refreshed from their masters, to all ranks. counts: working_bytes_per_rank.
/// Collective over `world`. Allocates nothing. Of the host's copies, or of those that programs read
/// (StepMemory::working_copies), in the order of a context's stream and by a group of its device.
void gather_working_copies(const StepMemory& memory, Group& world, std::span<const int64_t> counts);
void gather_working_copies(const Tensor& all, const Context& context, Group& group, std::span<const int64_t> counts);

}  // namespace permafrost
