#include "parallel/plan/plan.h"

#include <gtest/gtest.h>

#include "core/base/json.h"
#include "tests/support/compare.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

using testing::throws_error;

PlanRequest request(std::vector<FreezeRule> freezing = {{"blocks.1.*", true}}) {
  PlanRequest r;
  r.build_graph = [](int64_t tokens) {
    testing::ToyConfig config;
    config.tokens = tokens;
    return testing::toy_transformer(config);
  };
  r.buckets = {4, 8};
  r.freezing = std::move(freezing);
  return r;
}

TEST(Plan, CountsParametersAndBytesInClosedForm) {
  PlanRequest r = request();
  r.world = {3, 1, 1};
  const Plan plan = make_plan(r);
  const int64_t d = 16, f = 24, v = 11;
  const int64_t block = 2 * d + 3 * d * d + 3 * d + d * d + d + 2 * d + f * d + f + d * f + d;
  EXPECT_EQ(plan.trainable_params, block);
  EXPECT_EQ(plan.total_params, 3 * block + v * d + 2 * d);
  // One block of the trainable space after another goes to the ranks; here it is less than one block.
  EXPECT_EQ(plan.slice(0), (std::pair<int64_t, int64_t>{0, plan.trainable_space}));
  EXPECT_EQ(plan.slice(2).second - plan.slice(2).first, 0);
  EXPECT_EQ(plan.memory.sums, 8 * plan.trainable_space);
  EXPECT_EQ(plan.memory.optimizer, 12 * plan.trainable_space);
  EXPECT_EQ(plan.memory.working, 4 * plan.trainable_space);
  EXPECT_EQ(plan.slots, 1);
  EXPECT_EQ(plan.memory.arena, std::max(plan.programs[0].arena_bytes, plan.programs[1].arena_bytes));
}

TEST(Plan, SlicesCoverTheTrainableSpaceInBlocks) {
  for (int ranks = 1; ranks <= 7; ++ranks) {
    PlanRequest r = request({{"*", true}});
    r.build_graph = [](int64_t tokens) {
      return testing::toy_transformer({2, tokens, 64, 4, 256, 333, 3, DType::kBF16, Activation::kRelu});
    };
    r.world = {ranks, 1, 1};
    const Plan plan = make_plan(r);
    int64_t end = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto [begin, stop] = plan.slice(rank);
      EXPECT_EQ(begin, end);
      EXPECT_EQ(begin % kTrainableBlock, begin == plan.trainable_space ? begin % kTrainableBlock : 0);
      end = stop;
    }
    EXPECT_EQ(end, plan.trainable_space);
    EXPECT_EQ(plan.working_byte(plan.trainable_space), plan.memory.working);
  }
}

TEST(Plan, HashDependsOnWhatItShouldAndOnNothingElse) {
  const std::string base = make_plan(request()).hash();
  EXPECT_EQ(base, make_plan(request()).hash());
  EXPECT_NE(base, make_plan(request({{"blocks.2.*", true}})).hash());
  PlanRequest more = request();
  more.world.ranks = 2;
  EXPECT_NE(base, make_plan(more).hash());
  EXPECT_EQ(make_plan(request()).graph_hash(), make_plan(more).graph_hash());
  EXPECT_NE(make_plan(request()).graph_hash(), make_plan(request({{"blocks.2.*", true}})).graph_hash());
  PlanRequest apart = request();
  apart.options.reuse_memory = false;
  EXPECT_NE(base, make_plan(apart).hash());
}

TEST(Plan, SaysWhereTheFrontierIsAndWhy) {
  const Plan plan = make_plan(request());
  ASSERT_EQ(plan.units.size(), 5u);
  EXPECT_TRUE(plan.units[0].behind_frontier && plan.units[1].behind_frontier);
  EXPECT_EQ(plan.units[1].freeze_class, FreezeClass::kPrefix);
  EXPECT_EQ(plan.units[1].saved_bytes, 0);
  EXPECT_EQ(plan.units[2].freeze_class, FreezeClass::kInner);
  EXPECT_EQ(plan.units[3].freeze_class, FreezeClass::kPassThrough);
  EXPECT_FALSE(plan.units[3].behind_frontier);
  EXPECT_NE(plan.units[3].frontier_reason.find("depends on trainable blocks.1.norm1."), std::string::npos)
      << plan.units[3].frontier_reason;
  EXPECT_NE(plan.table().find("2 of 5 units are behind the frontier"), std::string::npos) << plan.table();
}

TEST(Plan, ClassFirstHasNoGradientTowardsItsInput) {
  const Plan plan = make_plan(request({{"blocks.0.norm1.weight", true}}));
  EXPECT_EQ(plan.needs[0].op_class[1], FreezeClass::kFirst);
}

TEST(Plan, JsonHasTheDocumentedKeys) {
  const auto j = parse_json(make_plan(request()).json());
  EXPECT_EQ(j.at("parameters").at("trainable"), make_plan(request()).trainable_params);
  for (const char* key : {"frozen_bytes", "working_bytes", "optimizer_bytes", "sums_bytes", "gradients_bytes",
                          "arena_bytes", "inputs_bytes", "state_bytes", "slots_bytes", "total_bytes"})
    EXPECT_TRUE(j.at("memory").contains(key)) << key;
  for (const char* key : {"gathered_frozen_bytes", "reduced_gradients_bytes", "gathered_working_bytes", "total_bytes"})
    EXPECT_TRUE(j.at("traffic").contains(key)) << key;
  EXPECT_EQ(j.at("units").size(), 5u);
  EXPECT_EQ(j.at("hash").get<std::string>().size(), 64u);
}

TEST(Plan, PicksTheSmallestBucketThatHoldsTheText) {
  const Plan plan = make_plan(request());
  EXPECT_EQ(plan.bucket_for(1), 0u);
  EXPECT_EQ(plan.bucket_for(4), 0u);
  EXPECT_EQ(plan.bucket_for(5), 1u);
  EXPECT_TRUE(throws_error([&] { plan.bucket_for(9); }, ErrorKind::kInvalidArgument, {"at most 8", "got 9"}));
}

TEST(Plan, RefusesBadRequests) {
  PlanRequest r = request();
  r.buckets = {8, 4};
  EXPECT_TRUE(throws_error([&] { make_plan(r); }, ErrorKind::kConfig, {"ascending"}));
  r = request();
  r.world = {2, 3, 1};
  EXPECT_TRUE(
      throws_error([&] { make_plan(r); }, ErrorKind::kConfig, {"every node needs a rank", "2 ranks on 3 nodes"}));
  r = request();
  r.micro_batches = 0;
  EXPECT_TRUE(throws_error([&] { make_plan(r); }, ErrorKind::kConfig, {"at least one micro-batch"}));
  EXPECT_TRUE(throws_error(
      [&] {
        make_plan(request({{"nothing.*", true}}));
      },
      ErrorKind::kConfig, {"'nothing.*'", "match none", "embed.weight"}));
  EXPECT_TRUE(
      throws_error([&] { make_plan(request({})); }, ErrorKind::kConfig, {"at least one parameter must be trainable"}));
}

TEST(Plan, WorksForWorldsLargerThanThisMachine) {
  PlanRequest r = request({{"*", true}});
  r.world = {1024, 128, 8};
  r.micro_batches = 4096;
  const Plan plan = make_plan(r);
  EXPECT_EQ(plan.slots, 4);
  EXPECT_GT(plan.traffic.reduced_gradients, 0);
  EXPECT_GT(plan.traffic.vote, 0);
}

}  // namespace
}  // namespace permafrost
