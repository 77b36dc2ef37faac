#pragma once
#include <string>
#include <vector>

#include "parallel/plan/plan.h"

namespace permafrost {

// Pieces of make_plan, in the order in which it calls them.

/// Everything of `plan.memory` but frozen weights and slots.
void count_memory(Plan& plan, const PlanRequest& request);

/// Decides how every unit reaches the ranks, schedules the gathers of all programs, lets their steps read sharded
/// parameters from the slots, and completes `plan.memory`. Returns the reason for each unit's policy.
std::vector<std::string> apply_policies(Plan& plan, const PlanRequest& request);

/// Fills `plan.traffic`.
void count_traffic(Plan& plan);

}  // namespace permafrost
