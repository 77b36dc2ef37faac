#pragma once
#include <vector>

namespace permafrost {

constexpr int kGatherSlots = 2;

/// One unit of sharded weights brought into a slot, for the steps [first_use, last_use] of a program.
struct Gather {
  int unit = -1;
  int slot = 0;
  int start_step =
      0;  ///< the slot is free, and all earlier gathers have begun, once the steps before this one are done
  int first_use = 0, last_use = 0;
};

/// Gathers for a program whose step s reads the sharded units uses[s]. Two slots: a unit stays in its slot until the
/// place is needed for another, which takes the slot whose unit is needed again last (of two that are never needed
/// again, the one that was used first). No other choice moves fewer bytes of equal units, and along a chain of units
/// the next one can always be gathered while one computes.
/// Errors: kConfig when one step reads more than two sharded units; the message names the step by number.
std::vector<Gather> schedule_gathers(const std::vector<std::vector<int>>& uses);

}  // namespace permafrost
