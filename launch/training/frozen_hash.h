#pragma once
#include <span>
#include <string>
#include <vector>

#include "core/device/thread_pool.h"
#include "core/weights/block_hash.h"
#include "parallel/group/group.h"
#include "parallel/plan/plan.h"
#include "parallel/shard/frozen_range.h"

namespace permafrost {

/// Hash of the frozen parameters as stored. The same for any number of ranks, threads and nodes and for any policy; its
/// parts tell which units differ.
struct FrozenHash {
  struct Unit {
    std::string name;
    BlockHashSum sum{};
    friend bool operator==(const Unit&, const Unit&) = default;
  };
  std::vector<Unit> units;  ///< those with frozen parameters, in the order of the plan
  std::string sha256;       ///< of the lines "<unit> <sum in hex>\n"
};

/// A unit's bytes are those from its first frozen parameter to the end of its last, gaps (which are zero) included, in
/// blocks of 4096 from the unit's beginning; see BlockHasher for what the sums are good for.
///
/// Collective over `world`, all ranks, and `node`, those that share memory. Of units that each node has as a whole the
/// ranges of a node's ranks together must hold every byte once, of units sharded over several nodes those of all ranks
/// (FrozenLayout::share). Ranges are cut at multiples of 4096 bytes from the beginning of a unit, or at the end of one.
/// Errors: kInvalidArgument for another cut, or when the ranks' bytes are not as many as
/// the units'.
FrozenHash hash_frozen(const Plan& plan, std::span<const FrozenRange> ranges, Group& world, Group& node,
                       ThreadPool& pool);

/// Names of the units that differ, in the order of the plan. Both hashes are of one plan.
std::vector<std::string> changed_units(const FrozenHash& before, const FrozenHash& after);

}  // namespace permafrost
