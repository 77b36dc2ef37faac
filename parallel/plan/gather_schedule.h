#pragma once
#include <cstdint>
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

/// Which of two units gives way to a third.
enum class SlotChoice : uint8_t {
  kLeastRecent,  ///< the one used longer ago: its slot is free while the other computes, so the next unit can come
                 ///< ahead
  kFarthest,     ///< the one needed again last: no strategy gathers less often, but often nothing can come ahead
};

/// Gathers for a program whose step s reads the sharded units uses[s]. A unit stays in its slot until the slot is
/// needed for another. Errors: kConfig when one step reads more than two sharded units; the message names the step by
/// number.
std::vector<Gather> schedule_gathers(const std::vector<std::vector<int>>& uses, SlotChoice choice);

}  // namespace permafrost
