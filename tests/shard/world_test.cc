#include "parallel/shard/world.h"

#include <gtest/gtest.h>

#include "core/base/check.h"

namespace permafrost {
namespace {

TEST(World, WithoutANodeListConsecutiveRanksShareANode) {
  const World world{7, 3, 1};
  std::vector<int> nodes;
  for (int rank = 0; rank < 7; ++rank) nodes.push_back(world.node_of(rank));
  EXPECT_EQ(nodes, (std::vector<int>{0, 0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(world.ranks_of_node(1), (std::vector<int>{3, 4}));
  EXPECT_EQ(world.most_ranks_of_a_node(), 3);
}

TEST(World, TheNodeListDecides) {
  World world{4, 2, 1};
  world.node_of_rank = {1, 0, 1, 1};
  EXPECT_EQ(world.node_of(1), 0);
  EXPECT_EQ(world.ranks_of_node(1), (std::vector<int>{0, 2, 3}));
  EXPECT_EQ(world.most_ranks_of_a_node(), 3);
  EXPECT_NO_THROW(check_world(world));
}

TEST(World, SpareCoresAreThoseNobodyComputesOn) {
  EXPECT_EQ((World{4, 2, 3, 8}).spare_cores(), 2);
  EXPECT_EQ((World{4, 2, 4, 8}).spare_cores(), 0);
  EXPECT_EQ((World{4, 2, 5, 8}).spare_cores(), 0);
  EXPECT_EQ((World{4, 2, 1, 0}).spare_cores(), 0) << "not known";
}

std::string refusal(const World& world) {
  try {
    check_world(world);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    return error.what();
  }
  return "accepted";
}

TEST(World, RefusesWhatCannotBe) {
  EXPECT_NE(refusal({0, 1, 1}).find("must be at least 1; got 0, 1, 1"), std::string::npos);
  EXPECT_NE(refusal({2, 3, 1}).find("every node needs a rank; got 2 ranks on 3 nodes"), std::string::npos);
  EXPECT_NE(refusal({2, 2, 1, 0, {0}}).find("every one of the 2 ranks needs a node; got 1"), std::string::npos);
  EXPECT_NE(refusal({2, 2, 1, 0, {0, 0}}).find("got none for node 1 of 2"), std::string::npos);
  EXPECT_NE(refusal({3, 2, 1, 0, {0, 1, 2}}).find("nodes must be in 0..1; got 2"), std::string::npos);
}

}  // namespace
}  // namespace permafrost
