#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "parallel/shard/frozen_range.h"
#include "parallel/shard/shard_spec.h"
#include "parallel/shard/world.h"

namespace permafrost {

/// The frozen parameters of a unit: a range of the frozen space.
struct FrozenUnit {
  int64_t begin = 0;     ///< multiple of kFrozenBlock
  int64_t bytes = 0;     ///< padding between parameters included
  bool sharded = false;  ///< each rank holds its part only; otherwise every node has the whole unit
};

/// Parts of units begin at multiples of this many bytes: a page, so that no page has two owners.
constexpr int64_t kFrozenBlock = 4096;

/// Where the frozen space lies in the memory of a node, which all its ranks see. A unit is there as a whole when it is
/// resident, or when all ranks share one node: their parts then stand one after the other. Otherwise only the parts of
/// the node's ranks are there, rank by rank behind the whole units.
class FrozenLayout {
 public:
  /// units ascend without overlap.
  FrozenLayout(std::vector<FrozenUnit> units, const World& world, int rank);

  const std::vector<FrozenUnit>& units() const { return units_; }
  /// Bytes of the node's memory.
  int64_t node_bytes() const { return node_bytes_; }
  bool whole(size_t unit) const { return !units_[unit].sharded || one_node_; }
  /// Place in the node's memory of a unit that is there as a whole.
  int64_t whole_at(size_t unit) const;
  /// Place in the node's memory of this rank's part of a sharded unit.
  int64_t own_part_at(size_t unit) const;
  /// How a sharded unit is divided over all ranks.
  ShardSpec parts(size_t unit) const;

  /// What this rank reads from files and hashes. The ranks of a node together have every byte of its memory once; of
  /// sharded units the ranks of the world have every byte once. `memory` is where the node's memory begins on this
  /// rank.
  std::vector<FrozenRange> share(std::byte* memory) const;

 private:
  std::vector<FrozenUnit> units_;
  bool one_node_;
  int ranks_, rank_;
  int ranks_on_node_, rank_on_node_;
  int64_t node_bytes_ = 0;
  std::vector<int64_t> places_;  // per unit: whole_at or own_part_at
};

}  // namespace permafrost
