// Programs on a GPU (or its emulation) whose weights devices gather from each other: graphs of what is between gathers.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "core/device/bytes.h"
#include "core/device/cuda.h"
#include "core/kernels/shape_ops.h"
#include "parallel/group/host_staged_group.h"
#include "parallel/group/inproc_group.h"
#include "parallel/run/executor.h"
#include "tests/support/compare.h"
#include "tests/support/fill_share.h"
#include "tests/support/long_stretches.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

/// Sums of gradients on the device: the same work in every program.
class DeviceSums final : public GradientSink {
 public:
  DeviceSums(const Plan& plan, const Context& context) : context_(context) {
    for (size_t p = 0; p < plan.params.size(); ++p)
      if (const ParamPlan& param = plan.params[p]; param.trainable) {
        const TensorSpec spec{param.shape, DType::kF32};
        sums_.emplace(static_cast<int>(p), Buffer("sum", spec.bytes(), context.device));
      }
  }
  void add(int param, const Tensor& gradient) override {
    accumulate(context_, gradient, {sums_.at(param).data(), gradient.spec(), context_.device}, GradMode::kAdd);
  }
  int same_work() const override { return 1; }
  void clear() const {
    for (const auto& [param, sum] : sums_) fill_bytes(context_, sum.data(), 0, sum.bytes());
  }
  std::map<int, std::vector<std::byte>> read() const {
    std::map<int, std::vector<std::byte>> all;
    for (const auto& [param, sum] : sums_) {
      all[param].resize(static_cast<size_t>(sum.bytes()));
      copy_bytes(context_, all[param].data(), sum.data(), sum.bytes());
    }
    finish(context_);
    return all;
  }

 private:
  Context context_;
  std::map<int, Buffer> sums_;
};

using LossAndSums = std::pair<double, std::map<int, std::vector<std::byte>>>;

/// One of two ranks, on nodes of their own.
struct GatheringRank {
  Stream stream{Device::cuda(0)};
  Context context{.device = Device::cuda(0), .pool = nullptr, .stream = stream};
  std::unique_ptr<Group> devices;
  Plan plan;
  StepMemory memory;
  Executor executor;
  DeviceSums sums;

  static PlanRequest request(GatherChoice gather) {
    PlanRequest request;
    request.world.ranks = request.world.nodes = 2;
    request.world.device = DeviceKind::kCuda;
    request.build_graph = [](int64_t tokens) {
      testing::ToyConfig config;
      config.blocks = 4;
      config.tokens = tokens;
      return testing::toy_transformer(config);
    };
    request.buckets = {5, 8};
    request.freezing = {{"blocks.1.*", true}, {"blocks.3.fc2.bias", true}};
    request.frozen_dtype = [](const ParamInfo&) { return DType::kF32; };
    request.frozen_policy = PolicyChoice::kSharded;
    request.gather = gather;
    return request;
  }

  GatheringRank(Group& world, GatherChoice gather, const ExecutorOptions& options)
      : devices(make_host_staged_group(world.split(0, world.rank(), "gathers"), Device::cuda(0), 1 << 16)),
        plan(make_plan(request(gather))),
        memory(plan, world.rank(), nullptr, Device::cuda(0)),
        executor(plan, memory, context, options, devices.get()),
        sums(plan, context) {
    EXPECT_EQ(plan.gather.kind, GatherKind::kCollective);
    testing::fill_share(plan, memory);
    memory.upload_frozen(context);
    memory.upload_working(context);
  }
  void set_inputs(size_t bucket) const {
    const Tensor ids = executor.value(bucket, "ids"), labels = executor.value(bucket, "labels");
    for (int64_t i = 0; i < ids.elements(); ++i) {
      ids.data<int32_t>()[i] = static_cast<int32_t>((3 * i + 1) % 11);
      labels.data<int32_t>()[i] = static_cast<int32_t>((5 * i + 2) % 11);
      executor.value(bucket, "row_weight").data<float>()[i] = 0.125f;
    }
  }
  LossAndSums run(size_t bucket) {
    set_inputs(bucket);
    sums.clear();
    const double loss = executor.run(bucket, &sums);
    return {loss, sums.read()};
  }
  int64_t segments(size_t bucket) const { return std::ssize(testing::long_stretches(plan.programs[bucket])); }
};

class ExecutorSegments : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  }
  static void on_two(GatherChoice gather, const ExecutorOptions& options,
                     const std::function<void(GatheringRank&, int)>& body) {
    run_inproc(2, [&](Group& world) {
      GatheringRank rank(world, gather, options);
      body(rank, world.rank());
    });
  }
  /// Of both programs, without graphs.
  static std::map<size_t, LossAndSums> by_kernels() {
    std::map<size_t, LossAndSums> results;
    on_two(GatherChoice::kInline, {.graphs = false}, [&](GatheringRank& rank, int number) {
      for (const size_t bucket : {0, 1}) {
        const LossAndSums result = rank.run(bucket);
        if (number == 0) results[bucket] = result;
      }
      EXPECT_EQ(rank.executor.graph_launches(), 0);
    });
    EXPECT_GT(results[0].second.size(), 12u);
    return results;
  }
};

TEST_F(ExecutorSegments, ChangeNoBitHoweverRanksMix) {
  const std::map<size_t, LossAndSums> want = by_kernels();
  for (const GatherChoice gather : {GatherChoice::kInline, GatherChoice::kPrefetch})
    on_two(gather, {}, [&](GatheringRank& rank, int number) {
      EXPECT_TRUE(rank.executor.graphs_between_gathers(0));
      EXPECT_GT(rank.segments(0), 4);
      std::map<size_t, int64_t> runs;
      for (int turn = 0; turn < 9; ++turn) {
        const auto role = static_cast<size_t>((number + turn) % 3);
        if (role == 2) {
          rank.executor.only_gather();
          continue;
        }
        ++runs[role];
        EXPECT_EQ(rank.run(role), want.at(role)) << "rank " << number << ", turn " << turn;
      }
      EXPECT_EQ(rank.executor.graph_launches(), (runs[0] - 1) * rank.segments(0) + (runs[1] - 1) * rank.segments(1));
      EXPECT_EQ(rank.executor.take_gathered_bytes(),
                9 * rank.plan.traffic_of(number).gathered_frozen / rank.plan.slots);
    });
}

TEST_F(ExecutorSegments, OutliveProgramsThatEndEarly) {
  const std::map<size_t, LossAndSums> want = by_kernels();
  on_two(GatherChoice::kPrefetch, {}, [&](GatheringRank& rank, int) {
    for (int turn = 0; turn < 2; ++turn) EXPECT_EQ(rank.run(0), want.at(0));
    const int64_t launches = rank.executor.graph_launches();
    EXPECT_EQ(launches, rank.segments(0));
    EXPECT_EQ(rank.executor.forward(0), want.at(0).first);
    rank.executor.value(0, "row_weight").data<float>()[0] = std::numeric_limits<float>::infinity();
    EXPECT_TRUE(rank.executor.find_non_finite(0).has_value());
    EXPECT_EQ(rank.executor.graph_launches(), launches) << "those see every operation";
    EXPECT_EQ(rank.run(0), want.at(0));
    EXPECT_EQ(rank.executor.graph_launches(), 2 * launches);
    rank.executor.forget_graphs();
    EXPECT_EQ(rank.run(0), want.at(0));
    EXPECT_EQ(rank.executor.graph_launches(), 2 * launches);
  });
}

/// What an observer is told, and whether it wants to see every step.
struct CountedCalls final : ExecutorObserver {
  explicit CountedCalls(bool steps) : steps(steps) {}
  void begin_program(size_t) override { ++programs; }
  void begin_gather(size_t) override { ++open_gathers, ++gathers; }
  void end_gather(size_t) override { --open_gathers; }
  void begin_step(size_t) override { EXPECT_EQ(open_gathers, 0); }
  void end_step(size_t) override { ++ended_steps; }
  bool needs_steps() const override { return steps; }
  bool steps;
  int64_t programs = 0, gathers = 0, open_gathers = 0, ended_steps = 0;
};

TEST_F(ExecutorSegments, ShowProgramsAndGathersToObserversThatDoNotNeedSteps) {
  constexpr int kRuns = 3;
  for (const bool needs_steps : {true, false})
    on_two(GatherChoice::kPrefetch, {}, [&](GatheringRank& rank, int) {
      CountedCalls seen(needs_steps);
      rank.executor.observe(&seen);
      for (int turn = 0; turn < kRuns; ++turn) rank.run(0);
      rank.executor.observe(nullptr);
      EXPECT_EQ(rank.executor.graph_launches(), needs_steps ? 0 : (kRuns - 1) * rank.segments(0));
      EXPECT_EQ(seen.programs, kRuns);
      EXPECT_EQ(seen.open_gathers, 0);
      EXPECT_EQ(seen.gathers % kRuns, 0);
      EXPECT_GT(seen.gathers, 4 * kRuns);
      const int64_t steps = std::ssize(rank.plan.programs[0].steps);
      if (needs_steps)
        EXPECT_EQ(seen.ended_steps, kRuns * steps);
      else
        EXPECT_LT(seen.ended_steps, kRuns * steps);
    });
}

TEST_F(ExecutorSegments, AreNotMadeWhereGraphsAreOff) {
  const std::map<size_t, LossAndSums> want = by_kernels();
  for (const ExecutorOptions& options : {ExecutorOptions{.graphs = false}, ExecutorOptions{.poison_released = true}})
    on_two(GatherChoice::kPrefetch, options, [&](GatheringRank& rank, int) {
      for (int turn = 0; turn < 3; ++turn) EXPECT_EQ(rank.run(0), want.at(0));
      EXPECT_EQ(rank.executor.graph_launches(), 0);
    });
}

}  // namespace
}  // namespace permafrost
