#include "parallel/shard/frozen_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/base/check.h"

namespace permafrost {
namespace {

/// Units of odd sizes: larger and smaller than a block, empty, with and without policy.
std::vector<FrozenUnit> units(bool first_sharded) {
  return {{0, 5 * kFrozenBlock + 64, first_sharded},
          {6 * kFrozenBlock, 0, false},
          {6 * kFrozenBlock, 128, true},
          {7 * kFrozenBlock, 3 * kFrozenBlock, false},
          {10 * kFrozenBlock, 9 * kFrozenBlock + 192, true}};
}

/// All ways in which up to five ranks can stand on nodes that are worth a test.
std::vector<World> worlds() {
  std::vector<World> all;
  for (int ranks = 1; ranks <= 5; ++ranks)
    for (int nodes = 1; nodes <= ranks; ++nodes) all.push_back({ranks, nodes, 1});
  all.push_back({4, 2, 1, 0, {0, 1, 0, 1}});
  all.push_back({5, 3, 1, 0, {2, 0, 1, 0, 2}});
  return all;
}

/// How often each byte of the frozen space is in the shares of `ranks`, and where in node memory it stands.
struct Coverage {
  std::map<int64_t, int> times;      // block -> count
  std::vector<int> node_bytes;       // per byte of the node's memory / 64
  std::map<int64_t, int64_t> place;  // piece of 64 bytes -> place in the node's memory
};

void cover(const std::vector<FrozenUnit>& list, const World& world, int rank, Coverage& coverage) {
  const FrozenLayout layout(list, world, rank);
  coverage.node_bytes.resize(static_cast<size_t>(layout.node_bytes() / 64));
  std::byte* const memory = reinterpret_cast<std::byte*>(int64_t{1} << 40);
  for (const FrozenRange& range : layout.share(memory)) {
    ASSERT_LT(range.begin, range.end);
    for (int64_t at = range.begin; at < range.end; at += 64) {
      ++coverage.times[at];
      const int64_t place = range.data - memory + (at - range.begin);
      ASSERT_LT(place, layout.node_bytes());
      ++coverage.node_bytes[static_cast<size_t>(place / 64)];
      coverage.place[at] = place;
    }
  }
}

TEST(FrozenLayout, TheRanksOfANodeHaveItsMemoryOnceAndWholeUnitsStandInARow) {
  for (const bool first_sharded : {false, true})
    for (const World& world : worlds())
      for (int node = 0; node < world.nodes; ++node) {
        const auto list = units(first_sharded);
        Coverage coverage;
        const std::vector<int> here = world.ranks_of_node(node);
        for (int rank : here) cover(list, world, rank, coverage);
        const FrozenLayout layout(list, world, here.front());
        for (int rank : here) EXPECT_EQ(FrozenLayout(list, world, rank).node_bytes(), layout.node_bytes());
        EXPECT_LE(*std::ranges::max_element(coverage.node_bytes), 1) << "two owners of a place";
        for (const auto& [at, times] : coverage.times) EXPECT_EQ(times, 1) << at;
        for (size_t u = 0; u < list.size(); ++u) {
          if (!layout.whole(u)) continue;
          for (int64_t at = 0; at < list[u].bytes; at += 64)
            ASSERT_EQ(coverage.place.at(list[u].begin + at), layout.whole_at(u) + at);
        }
      }
}

TEST(FrozenLayout, TheRanksOfTheWorldHaveShardedUnitsOnceAndResidentOnesOncePerNode) {
  for (const World& world : worlds()) {
    const auto list = units(true);
    std::map<int64_t, int> times;
    for (int node = 0; node < world.nodes; ++node) {
      Coverage coverage;
      for (int rank : world.ranks_of_node(node)) cover(list, world, rank, coverage);
      for (const auto& [at, count] : coverage.times) times[at] += count;
    }
    for (const FrozenUnit& unit : list)
      for (int64_t at = 0; at < unit.bytes; at += 64)
        ASSERT_EQ(times[unit.begin + at], unit.sharded ? 1 : world.nodes) << world.ranks << " on " << world.nodes;
  }
}

TEST(FrozenLayout, OnSeveralNodesANodeHoldsItsRanksPartsOnly) {
  const std::vector<FrozenUnit> list = {{0, 64 * kFrozenBlock, true}};
  EXPECT_EQ(FrozenLayout(list, {4, 1, 1}, 0).node_bytes(), 64 * kFrozenBlock);
  EXPECT_EQ(FrozenLayout(list, {4, 2, 1}, 0).node_bytes(), 32 * kFrozenBlock);
  EXPECT_EQ(FrozenLayout(list, {4, 4, 1}, 0).node_bytes(), 16 * kFrozenBlock);
  EXPECT_THROW(FrozenLayout(list, {4, 4, 1}, 0).whole_at(0), Error);
}

TEST(FrozenLayout, AUnitSmallerThanABlockHasOneOwner) {
  const std::vector<FrozenUnit> list = {{0, 64, true}};
  for (int rank = 0; rank < 3; ++rank)
    EXPECT_EQ(FrozenLayout(list, {3, 3, 1}, rank).parts(0).count(rank), rank == 0 ? 64 : 0);
}

TEST(FrozenLayout, RefusesUnitsOutOfOrder) {
  const std::vector<FrozenUnit> list = {{0, 2 * kFrozenBlock, false}, {kFrozenBlock, 64, false}};
  EXPECT_THROW(FrozenLayout(list, {1, 1, 1}, 0), Error);
}

}  // namespace
}  // namespace permafrost
