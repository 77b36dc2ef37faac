#include "parallel/shard/frozen_layout.h"

#include <algorithm>

#include "core/base/narrow.h"

namespace permafrost {

FrozenLayout::FrozenLayout(std::vector<FrozenUnit> units, const World& world, int rank)
    : units_(std::move(units)), one_node_(world.nodes == 1), ranks_(world.ranks), rank_(rank), places_(units_.size()) {
  const std::vector<int> here = world.ranks_of_node(world.node_of(rank));
  ranks_on_node_ = narrow<int>(here.size());
  rank_on_node_ = narrow<int>(std::ranges::find(here, rank) - here.begin());
  int64_t end = 0;
  for (size_t u = 0; u < units_.size(); ++u) {
    PERMAFROST_CHECK(units_[u].begin >= end && units_[u].begin % kFrozenBlock == 0 && units_[u].bytes >= 0,
                     "frozen layout: units must ascend and begin at multiples of ", kFrozenBlock, "; got ",
                     units_[u].begin, " + ", units_[u].bytes, " behind ", end);
    end = units_[u].begin + units_[u].bytes;
    if (!whole(u)) continue;
    places_[u] = node_bytes_;
    node_bytes_ += round_up(units_[u].bytes, kFrozenBlock);
  }
  for (int owner : here) {
    for (size_t u = 0; u < units_.size(); ++u) {
      if (whole(u)) continue;
      if (owner == rank_) places_[u] = node_bytes_;
      node_bytes_ += round_up(parts(u).count(owner), kFrozenBlock);
    }
  }
}

int64_t FrozenLayout::whole_at(size_t unit) const {
  PERMAFROST_CHECK(whole(unit), "frozen layout: unit ", unit, " is sharded over nodes and nowhere as a whole");
  return places_[unit];
}

int64_t FrozenLayout::own_part_at(size_t unit) const {
  return whole(unit) ? places_[unit] + parts(unit).begin(rank_) : places_[unit];
}

ShardSpec FrozenLayout::parts(size_t unit) const { return {units_[unit].bytes, ranks_, kFrozenBlock}; }

std::vector<FrozenRange> FrozenLayout::share(std::byte* memory) const {
  std::vector<FrozenRange> ranges;
  for (size_t u = 0; u < units_.size(); ++u) {
    const ShardSpec spec = whole(u) ? ShardSpec(units_[u].bytes, ranks_on_node_, kFrozenBlock) : parts(u);
    const int owner = whole(u) ? rank_on_node_ : rank_;
    if (spec.count(owner) == 0) continue;
    const int64_t begin = units_[u].begin + spec.begin(owner);
    std::byte* data = memory + places_[u] + (whole(u) ? spec.begin(owner) : 0);
    ranges.push_back({begin, begin + spec.count(owner), data});
  }
  return ranges;
}

}  // namespace permafrost
