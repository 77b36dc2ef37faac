#pragma once
#include <string>
#include <vector>

#include "parallel/plan/plan.h"

namespace permafrost {

/// Replays the gathers of all programs of a plan, knowing only which parameters belong to which unit, where units and
/// parameters stand in the frozen space, and the addresses in the steps. From the step at which a gather may begin its
/// slot holds nothing of use; from its first use, the unit. Every frozen parameter a step reads must be found, whole
/// and in its place, in the slot or on the node. Finds slots filled too early or too late, units read from the wrong
/// slot, sharded parameters that are read from nowhere, and slots that are too small. Returns problems in words.
std::vector<std::string> check_gathers(const Plan& plan);

}  // namespace permafrost
