// Sharded weights give the bits of resident ones, however they come to where they are used; and the bytes that come are
// those of the plan.
#include "parallel/run/weight_slots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "parallel/group/inproc_group.h"
#include "parallel/run/executor.h"
#include "tests/support/compare.h"
#include "tests/support/count_allocations.h"
#include "tests/support/fill_share.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

/// Keeps a copy of every gradient.
class KeptGradients final : public GradientSink {
 public:
  void add(int param, const Tensor& gradient) override {
    const auto* bytes = static_cast<const std::byte*>(gradient.raw());
    gradients[param].assign(bytes, bytes + gradient.bytes());
  }
  std::map<int, std::vector<std::byte>> gradients;
};

/// Frozen below and above what trains: units that are gathered forward only, and again in backward; a tied table.
PlanRequest sharded_request(DType compute, World world, GatherChoice gather,
                            PolicyChoice policy = PolicyChoice::kSharded) {
  PlanRequest request;
  request.build_graph = [compute](int64_t tokens) {
    testing::ToyConfig config;
    config.blocks = 5;
    config.compute = compute;
    config.tokens = tokens;
    config.width = 64;
    config.hidden = 96;
    return testing::toy_transformer(config);
  };
  request.buckets = {5, 8};
  request.freezing = {{"blocks.2.*", true}};
  request.frozen_dtype = [compute](const ParamInfo&) { return compute; };
  request.world = std::move(world);
  request.micro_batches = 3;
  request.frozen_policy = policy;
  request.gather = gather;
  return request;
}

/// One rank: its share of the weights, and what it computes.
struct Rank {
  const Plan& plan;
  StepMemory memory;
  Executor executor;

  Rank(const Plan& plan, int rank, int threads, Group* group = nullptr, bool poison = true)
      : plan(plan),
        memory(plan, rank),
        executor(plan, memory, testing::cpu_context(threads), {.poison_released = poison}, group) {
    testing::fill_share(plan, memory);
  }

  std::pair<double, std::map<int, std::vector<std::byte>>> run(size_t bucket) {
    const Tensor ids = executor.value(bucket, "ids"), labels = executor.value(bucket, "labels");
    for (int64_t i = 0; i < ids.elements(); ++i) {
      ids.data<int32_t>()[i] = static_cast<int32_t>((3 * i + 1) % 11);
      labels.data<int32_t>()[i] = static_cast<int32_t>((5 * i + 2) % 11);
      executor.value(bucket, "row_weight").data<float>()[i] = 0.125f;
    }
    KeptGradients sink;
    const double loss = executor.run(bucket, &sink);
    return {loss, sink.gradients};
  }
};

using Result = std::pair<double, std::map<int, std::vector<std::byte>>>;

Result resident(DType compute, size_t bucket) {
  const Plan plan = make_plan(sharded_request(compute, {}, GatherChoice::kAuto, PolicyChoice::kResident));
  return Rank(plan, 0, 1).run(bucket);
}

TEST(WeightSlots, OnOneNodeEveryMethodGivesTheBitsOfResidentWeights) {
  for (const DType compute : {DType::kF32, DType::kBF16})
    for (const size_t bucket : {0u, 1u}) {
      const Result expected = resident(compute, bucket);
      EXPECT_EQ(expected.second.size(), 12u) << "the parameters of a block";
      for (const GatherChoice gather : {GatherChoice::kInPlace, GatherChoice::kInline, GatherChoice::kPrefetch})
        for (const int ranks : {1, 3})
          for (const int threads : {1, 2}) {
            const Plan plan = make_plan(sharded_request(compute, {ranks, 1, threads}, gather));
            Rank rank(plan, ranks - 1, threads);
            for (int again = 0; again < 3; ++again) EXPECT_EQ(rank.run(bucket), expected) << static_cast<int>(gather);
            EXPECT_EQ(rank.executor.take_gathered_bytes(), 3 * plan.traffic_of(ranks - 1).gathered_frozen / plan.slots);
            EXPECT_EQ(rank.executor.take_gathered_bytes(), 0) << "taken";
          }
    }
}

TEST(WeightSlots, BetweenNodesRanksOnDifferentBucketsAndIdleOnesGatherTogether) {
  for (const GatherChoice gather : {GatherChoice::kInline, GatherChoice::kPrefetch})
    for (const int ranks : {2, 4}) {
      const Plan plan = make_plan(sharded_request(DType::kF32, {ranks, ranks, 1}, gather));
      ASSERT_GE(plan.programs[0].gathers.size(), 8u);
      const Result expected[] = {resident(DType::kF32, 0), resident(DType::kF32, 1)};
      run_inproc(ranks, [&](Group& world) {
        const auto group = world.split(0, world.rank(), "gathers");
        Rank rank(plan, world.rank(), 1, group.get());
        for (int turn = 0; turn < 4; ++turn) {
          const int role = (world.rank() + turn) % 3;
          if (role == 2) {
            rank.executor.only_gather();
          } else {
            const Result result = rank.run(static_cast<size_t>(role));
            if (result != expected[role]) throw Error(ErrorKind::kInternal, concat("rank ", world.rank(), " differs"));
          }
        }
        const int64_t gathered = rank.executor.take_gathered_bytes();
        if (gathered != 4 * plan.traffic_of(world.rank()).gathered_frozen / plan.slots)
          throw Error(ErrorKind::kInternal, concat("gathered ", gathered));
      });
    }
}

TEST(WeightSlots, MixedPoliciesGiveTheSameBits) {
  const Result expected = resident(DType::kBF16, 0);
  for (const char* pattern : {"embed", "blocks.3", "blocks.[04]"})
    for (const GatherChoice gather : {GatherChoice::kInline, GatherChoice::kPrefetch}) {
      PlanRequest request = sharded_request(DType::kBF16, {2, 1, 1}, gather, PolicyChoice::kResident);
      request.policies = {{pattern, PolicyChoice::kSharded}};
      const Plan plan = make_plan(request);
      EXPECT_EQ(Rank(plan, 1, 1).run(0), expected) << pattern;
    }
}

TEST(WeightSlots, AllocatesNothingWhileRunning) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted under sanitizers";
  for (const GatherChoice gather : {GatherChoice::kInline, GatherChoice::kPrefetch}) {
    const Plan plan = make_plan(sharded_request(DType::kF32, {2, 1, 2}, gather));
    Rank rank(plan, 0, 2, nullptr, false);
    rank.run(0);
    testing::begin_counting_allocations();
    for (int i = 0; i < 5; ++i) rank.executor.run(0, nullptr);
    const testing::AllocationCount count = testing::end_counting_allocations();
    EXPECT_EQ(count.calls, 0) << count.bytes << " bytes, largest " << count.largest;
  }
}

TEST(WeightSlots, WhatWasGatheredCanBeGatheredAgainAfterAProgramEndsEarly) {
  for (const GatherChoice gather : {GatherChoice::kInline, GatherChoice::kPrefetch}) {
    const Plan plan = make_plan(sharded_request(DType::kF32, {2, 1, 1}, gather));
    Rank rank(plan, 0, 1);
    const Result expected = rank.run(0);
    rank.executor.value(0, "row_weight").data<float>()[0] = std::numeric_limits<float>::infinity();
    EXPECT_TRUE(rank.executor.find_non_finite(0).has_value());
    EXPECT_EQ(rank.run(0), expected);
  }
}

/// A group whose gathers fail from the third on.
class FailingGroup final : public Group {
 public:
  explicit FailingGroup(Group& group) : group_(group) {}
  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  std::unique_ptr<Group> split(int color, int key, std::string_view tag, Waiting waiting) override {
    return group_.split(color, key, tag, waiting);
  }
  Event barrier(StreamView stream, std::string_view tag) override { return group_.barrier(stream, tag); }
  Event all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                   std::string_view tag) override {
    if (++gathers_ > 2) fail(ErrorKind::kTimeout, tag, ": all ranks must come; missing rank 1");
    return group_.all_gather(part, all, counts, stream, tag);
  }
  Event reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                       StreamView stream, std::string_view tag) override {
    return group_.reduce_scatter(all, part, counts, op, stream, tag);
  }
  Event all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream, std::string_view tag) override {
    return group_.all_reduce(in, out, op, stream, tag);
  }
  Event broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) override {
    return group_.broadcast(data, root, stream, tag);
  }
  Event send(const Tensor& data, int to, StreamView stream, std::string_view tag) override {
    return group_.send(data, to, stream, tag);
  }
  Event recv(const Tensor& data, int from, StreamView stream, std::string_view tag) override {
    return group_.recv(data, from, stream, tag);
  }
  std::optional<Error> async_error() const override { return group_.async_error(); }
  void abort(const Error& reason) noexcept override { group_.abort(reason); }

 private:
  Group& group_;
  int gathers_ = 0;
};

TEST(WeightSlots, AFailedGatherIsThrownWhereTheWeightsAreUsed) {
  for (const GatherChoice gather : {GatherChoice::kInline, GatherChoice::kPrefetch}) {
    const Plan plan = make_plan(sharded_request(DType::kF32, {2, 2, 1}, gather));
    run_inproc(2, [&](Group& world) {
      FailingGroup group(world);
      Rank rank(plan, world.rank(), 1, &group);
      try {
        rank.run(0);
        throw std::runtime_error("no error");
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kTimeout ||
            std::string(error.what()).find("missing rank 1") == std::string::npos)
          throw std::runtime_error(error.what());
      }
    });
  }
}

TEST(WeightSlots, GatheringBetweenNodesNeedsTheGroupOfAllRanks) {
  const Plan plan = make_plan(sharded_request(DType::kF32, {2, 2, 1}, GatherChoice::kInline));
  try {
    Rank rank(plan, 0, 1, nullptr);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("needs a group of the 2 ranks; got none"), std::string::npos);
  }
}

}  // namespace
}  // namespace permafrost
