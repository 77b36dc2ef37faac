#pragma once
#include <cstdint>

#include "launch/runtime.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// What each rank may take of its GPU: what was free when it opened it, divided by the ranks of its machine that share
/// it; the least of all ranks. 0 on CPU, and where a rank does not know. Collective.
int64_t least_device_memory(Runtime& runtime);

/// Errors: kConfig, before anything is allocated, when a rank needs more than `available_bytes` of its GPU; the message
/// has the numbers, the largest items and the ways out. Nothing to do for a plan for CPU, and for 0: not known.
void check_device_memory(const Plan& plan, int64_t available_bytes);
/// For a program beside the one that lends it frozen parameters and working copies.
void check_device_memory_beside(const Plan& plan, const Plan& lender, int64_t available_bytes);

}  // namespace permafrost
