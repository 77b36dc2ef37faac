// The planned traffic is what the collectives of a step count when they run, and what arithmetic on shapes says.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/base/narrow.h"
#include "parallel/group/recording_group.h"
#include "parallel/plan/plan.h"
#include "parallel/reduce/global_norm.h"
#include "parallel/reduce/order_free_sums.h"
#include "parallel/reduce/vote.h"
#include "tests/support/compare.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

using testing::OwnedTensor;

/// bf16 matrices and f32 vectors, so that equal elements are not equal bytes.
Plan plan_for(int ranks, Reduction reduction, int64_t width) {
  PlanRequest request;
  request.build_graph = [width](int64_t tokens) {
    return testing::toy_transformer({2, tokens, width, 4, 4 * width, 333, 2, DType::kBF16, Activation::kRelu});
  };
  request.buckets = {4};
  request.freezing = {{"blocks.*", true}};
  request.world.ranks = ranks;
  request.micro_batches = 5;
  request.reduction = reduction;
  return make_plan(request);
}

/// Runs the collectives of a step on a group whose other ranks are silent; bytes moved by tag.
std::map<std::string, int64_t> run_collectives(const Plan& plan, int rank) {
  const int ranks = plan.world.ranks;
  const auto recording = std::make_shared<Recording>();
  const auto group = make_recording_group(ranks, rank, recording);
  const Context context = testing::cpu_context();
  const ShardSpec shards(plan.trainable_space, ranks);
  const bool plain = plan.reduction == Reduction::kPlain;

  TrainableLayout layout;
  for (const ParamPlan& param : plan.params)
    if (param.trainable) layout.params.push_back({param.name, param.trainable_offset, param.shape.elements()});
  std::ranges::sort(layout.params, {}, &TrainableParam::offset);
  layout.elements = plan.trainable_space;

  Voter voter(ranks, std::ssize(layout.params), plan.micro_batches);
  const std::vector<int32_t> exponents(layout.params.size(), 0);
  Ballot ballot;
  ballot.exponents = exponents;
  // The silent ranks' empty messages are no valid votes; the call was made all the same.
  EXPECT_THROW(voter.cast(*group, ballot), Error);

  const OwnedTensor memory(plain ? DType::kF32 : DType::kI64, {plan.trainable_space});
  OrderFreeSums sums(layout, shards, rank, plan.micro_batches, plain ? SumMode::kPlain : SumMode::kOrderFree, memory);
  sums.begin_step(context, exponents);
  const OwnedTensor slice(DType::kF32, {shards.count(rank)}), blocks(DType::kF64, {shards.blocks()}),
      norm(DType::kF64, {1}), clip(DType::kF32, {1}), apply(DType::kI32, {1});
  sums.reduce(context, *group, slice);
  global_norm(context, *group, shards, slice, blocks, 0, {norm, clip, apply});

  std::vector<int64_t> counts;
  for (int r = 0; r < ranks; ++r)
    counts.push_back(plan.working_byte(shards.end(r)) - plan.working_byte(shards.begin(r)));
  const OwnedTensor working(DType::kU8, {plan.memory.working});
  const int64_t begin = plan.working_byte(shards.begin(rank));
  group
      ->all_gather(working.view().rows(begin, begin + counts[static_cast<size_t>(rank)]), working, counts,
                   StreamView::caller(), "working")
      .wait();

  std::map<std::string, int64_t> moved;
  for (const Record& record : recording->records()) moved[record.tag] += record.moved_bytes;
  return moved;
}

/// From the graph's shapes: elements padded to 32, matrices first, and what stands at each element of the space.
struct Space {
  int64_t elements = 0, matrix_elements = 0, params = 0;
  explicit Space(const Plan& plan) {
    for (const ParamInfo& info : plan.graphs[0].params()) {
      if (!info.name.starts_with("blocks.")) continue;
      const int64_t padded = (info.shape.elements() + 31) / 32 * 32;
      elements += padded;
      if (info.shape.rank() > 1) matrix_elements += padded;
      ++params;
    }
  }
  int64_t bytes(int64_t begin, int64_t end) const {
    const int64_t matrices = std::clamp(matrix_elements, begin, end) - begin;
    return 2 * matrices + 4 * (end - begin - matrices);
  }
};

TrafficPlan by_arithmetic(const Plan& plan, int rank) {
  const Space space(plan);
  const ShardSpec shards(space.elements, plan.world.ranks);
  const int64_t others = space.elements - shards.count(rank);
  TrafficPlan traffic;
  traffic.reduced_gradients = others * (plan.reduction == Reduction::kPlain ? 4 : 8);
  traffic.gathered_working = space.bytes(0, space.elements) - space.bytes(shards.begin(rank), shards.end(rank));
  traffic.gathered_norms = 8 * (shards.blocks() - shards.block_counts()[static_cast<size_t>(rank)]);
  // A head of its own, an exponent for each parameter, number and loss of each micro-batch slot.
  const int64_t slots = (plan.micro_batches + plan.world.ranks - 1) / plan.world.ranks,
                body = (4 * space.params + 7) / 8 * 8 + 16 * slots,
                message = Voter(plan.world.ranks, space.params, plan.micro_batches).message_bytes();
  EXPECT_GT(message, body);
  EXPECT_LE(message, body + 64);
  traffic.vote = (plan.world.ranks - 1) * message;
  return traffic;
}

void expect_same(const TrafficPlan& a, const TrafficPlan& b, const std::string& about) {
  EXPECT_EQ(a.reduced_gradients, b.reduced_gradients) << about;
  EXPECT_EQ(a.gathered_working, b.gathered_working) << about;
  EXPECT_EQ(a.gathered_norms, b.gathered_norms) << about;
  EXPECT_EQ(a.vote, b.vote) << about;
  EXPECT_EQ(a.gathered_frozen, b.gathered_frozen) << about;
}

TEST(PlannedTraffic, IsWhatTheCollectivesMoveOnTheRankWithMost) {
  int more_ranks_than_blocks = 0, uneven = 0;
  for (const Reduction reduction : {Reduction::kOrderFree, Reduction::kPlain})
    for (const int64_t width : {16, 64})
      for (const int ranks : {1, 2, 3, 4, 7, 40}) {
        const Plan plan = plan_for(ranks, reduction, width);
        const ShardSpec shards(plan.trainable_space, ranks);
        more_ranks_than_blocks += ranks > shards.blocks();
        uneven += shards.count(0) != shards.count(ranks - 1);
        TrafficPlan most;
        for (int rank = 0; rank < ranks; ++rank) {
          const std::string about = concat("rank ", rank, " of ", ranks, ", width ", width);
          const TrafficPlan expected = by_arithmetic(plan, rank);
          const auto moved = run_collectives(plan, rank);
          EXPECT_EQ(moved.at(reduction == Reduction::kPlain ? "plain gradient sums" : "order-free gradient sums"),
                    expected.reduced_gradients)
              << about;
          EXPECT_EQ(moved.at("working"), expected.gathered_working) << about;
          EXPECT_EQ(moved.at("block norms"), expected.gathered_norms) << about;
          EXPECT_EQ(moved.at("vote"), expected.vote) << about;
          EXPECT_EQ(moved.size(), 4u) << about;
          if (expected.total() > most.total()) most = expected;
          if (HasFailure()) return;  // one report is enough
        }
        expect_same(plan.traffic, most, concat(ranks, " ranks, width ", width));
        EXPECT_EQ(plan.traffic.total() == 0, ranks == 1);
      }
  EXPECT_GT(more_ranks_than_blocks, 0);
  EXPECT_GT(uneven, 4);
}

}  // namespace
}  // namespace permafrost
