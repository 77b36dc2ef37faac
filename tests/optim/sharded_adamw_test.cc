#include "optim/sharded_adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/device/bytes.h"
#include "core/device/cuda.h"
#include "core/kernels/order_free.h"
#include "parallel/reduce/global_norm.h"
#include "parallel/run/work_graphs.h"
#include "tests/support/compare.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

Plan plan(int ranks, DType compute) {
  PlanRequest r;
  r.build_graph = [compute](int64_t) {
    return testing::toy_transformer({2, 5, 64, 4, 256, 333, 2, compute, Activation::kRelu});
  };
  r.buckets = {5};
  r.freezing = {{"*", true}};
  r.world = {ranks, 1, 1};
  return make_plan(r);
}

AdamwConfig config() {
  AdamwConfig c;
  c.lr = 0.01;
  c.weight_decay = 0.1;
  c.groups = {{"*", ParameterGroupRule::Rank::kVectors, {}, 1, 0.0, true},
              {"blocks.1.*", ParameterGroupRule::Rank::kMatrices, {}, 0.5, {}, false}};
  return c;
}

float initial(int64_t i) { return static_cast<float>((i * 37) % 101) / 50.0f - 1.0f; }
float gradient_at(int64_t i, int step) { return static_cast<float>((i * 13 + step * 7) % 89) / 44.0f - 1.0f; }

/// What a step knows of the norm of its gradient.
struct Norm {
  testing::OwnedTensor norm, clip, apply;
  Norm(float clip_by, bool finite)
      : norm(DType::kF64, {1}),
        clip(testing::make_tensor(DType::kF32, {1}, {clip_by})),
        apply(testing::make_tensor(DType::kI32, {1}, {finite ? 1.0 : 0.0})) {}
  operator GradientNorm() const { return {norm, clip, apply}; }  // NOLINT: reads as what it holds
};

/// Masters and working copies after three updates on `ranks` ranks of the device in use, as one rank would have them.
/// graphs: the third is a launch of what was captured at the second.
std::pair<std::vector<float>, std::vector<std::byte>> train(int ranks, DType compute, bool graphs = false) {
  const Device device = testing::used_device();
  const Context context = testing::device_context();
  const Plan p = plan(ranks, compute);
  std::vector<float> masters(static_cast<size_t>(p.trainable_space));
  std::vector<std::byte> working(static_cast<size_t>(p.memory.working));
  for (int rank = 0; rank < ranks; ++rank) {
    StepMemory memory(p, 0, nullptr, device);
    ShardedAdamw optimizer(p, rank, config(), device);
    const int64_t begin = optimizer.slice_begin(), size = optimizer.slice_end() - begin;
    HostOptimizer loading(optimizer, context);
    for (int64_t i = 0; i < size; ++i) loading->master().data<float>()[i] = initial(begin + i);
    loading.put_back();
    loading->refresh_working(memory);
    memory.upload_working(context);
    const Norm norm(0.5f, true);
    testing::OwnedTensor gradient(DType::kF32, {size});
    WorkGraphs captured(context, [](WorkGraphs::Key) { return "update"; });
    for (int step = 1; step <= 3; ++step) {
      for (int64_t i = 0; i < size; ++i) gradient.view().data<float>()[i] = gradient_at(begin + i, step);
      optimizer.begin_step(step == 2 ? 0.1 : 1.0, step);
      const auto update = [&] { optimizer.update(context, gradient, norm, memory); };
      if (graphs)
        captured.run({0, 0}, update);
      else
        update();
      finish(context);
    }
    EXPECT_EQ(captured.launches(), graphs ? 2 : 0);
    std::copy_n(HostOptimizer(optimizer, context)->master().data<float>(), size, masters.begin() + begin);
    const int64_t from = p.working_byte(begin), to = p.working_byte(begin + size);
    copy_bytes(context, working.data() + from, memory.working_copies().data<uint8_t>() + from, to - from);
    finish(context);
  }
  return {masters, working};
}

TEST(ShardedAdamw, RanksChangeNoBit) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const auto one = train(1, compute);
    for (int ranks = 2; ranks <= 5; ++ranks) EXPECT_EQ(one, train(ranks, compute)) << ranks;
  }
}

TEST(ShardedAdamw, AGpuGivesTheBitsOfACpu) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  const Device before = testing::used_device();
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    testing::use_device(Device::cpu());
    const auto cpu = train(1, compute);
    testing::use_device(Device::cuda(0));
    EXPECT_EQ(train(1, compute), cpu);
    EXPECT_EQ(train(3, compute), cpu);
  }
  testing::use_device(before);
}

/// What changes from step to step is what the host wrote last.
TEST(ShardedAdamw, ACapturedUpdateGivesTheBitsOfCalls) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  const Device before = testing::used_device();
  testing::use_device(Device::cuda(0));
  EXPECT_EQ(train(1, DType::kF32, true), train(1, DType::kF32));
  EXPECT_EQ(train(3, DType::kBF16, true), train(3, DType::kBF16));
  testing::use_device(before);
}

TEST(ShardedAdamw, MoreRanksThanBlocksLeavesEmptySlices) {
  const Plan p = plan(64, DType::kF32);
  ShardedAdamw optimizer(p, 63, config());
  EXPECT_EQ(optimizer.slice_begin(), optimizer.slice_end());
}

TEST(ShardedAdamw, UpdatesAsTheFormulaSays) {
  const Plan p = plan(1, DType::kF32);
  const auto [masters, working] = train(1, DType::kF32);
  for (const ParamPlan& param : p.params) {
    const bool vector = param.shape.rank() <= 1, constant = !vector && param.name.starts_with("blocks.1.");
    const double decay = vector ? 0.0 : 0.1;
    for (const int64_t i : {int64_t{0}, param.shape.elements() - 1}) {
      const int64_t at = param.trainable_offset + i;
      double w = initial(at), m = 0, v = 0;
      for (int step = 1; step <= 3; ++step) {
        const double lr = constant ? 0.005 : 0.01 * (step == 2 ? 0.1 : 1.0), g = 0.5 * gradient_at(at, step);
        w *= 1 - lr * decay;
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        w -= lr * (m / (1 - std::pow(0.9, step))) / (std::sqrt(v / (1 - std::pow(0.999, step))) + 1e-8);
      }
      EXPECT_NEAR(masters[static_cast<size_t>(at)], w, 1e-6) << param.name;
      float copy;
      std::memcpy(&copy, working.data() + param.placement.offset + 4 * i, 4);
      EXPECT_EQ(copy, masters[static_cast<size_t>(at)]) << param.name;
    }
  }
}

TEST(ShardedAdamw, AStepThatIsNotToBeTakenChangesNothing) {
  const Plan p = plan(1, DType::kF32);
  const Device device = testing::used_device();
  const Context context = testing::device_context();
  StepMemory memory(p, 0, nullptr, device);
  ShardedAdamw optimizer(p, 0, config(), device);
  {
    HostOptimizer loading(optimizer, context);
    std::fill_n(loading->master().data<float>(), optimizer.slice_end(), 0.5f);
    loading.put_back();
  }
  const testing::OwnedTensor gradient = testing::random_tensor(DType::kF32, {optimizer.slice_end()}, 1);
  const Norm infinite(1.0f, false);
  optimizer.begin_step(1, 1);
  optimizer.update(context, gradient, infinite, memory);
  finish(context);
  HostOptimizer after(optimizer, context);
  for (int64_t i = 0; i < optimizer.slice_end(); ++i) ASSERT_EQ(after->master().data<float>()[i], 0.5f);
}

/// The launch of a graph that was captured in a step whose norm was finite.
TEST(ShardedAdamw, ALaunchWhoseNormIsNotFiniteChangesNothing) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  const Device before = testing::used_device(), device = Device::cuda(0);
  testing::use_device(device);
  const Context context = testing::device_context();
  const Plan p = plan(1, DType::kF32);
  StepMemory memory(p, 0, nullptr, device);
  ShardedAdamw optimizer(p, 0, config(), device);
  const ShardSpec shards(p.trainable_space, 1);
  const testing::OwnedTensor gradient = testing::random_tensor(DType::kF32, {optimizer.slice_end()}, 1),
                             blocks(DType::kF64, {shards.blocks()});
  const Norm norm(0, false);
  WorkGraphs graphs(context, [](WorkGraphs::Key) { return "norm and update"; });
  int64_t step = 0;
  /// Masters after another step whose gradient has `first` in front.
  const auto masters_after = [&](float first) {
    gradient.view().data<float>()[0] = first;
    optimizer.begin_step(1, ++step);
    graphs.run({0, 0}, [&] {
      own_norm_blocks(context, 0, shards, gradient, blocks);
      norm_of_blocks(context, blocks, 1, norm.norm, norm.clip, norm.apply);
      optimizer.update(context, gradient, norm, memory);
    });
    finish(context);
    EXPECT_EQ(std::isfinite(norm.norm.view().data<double>()[0]), std::isfinite(first));
    const ShardedAdamw copy = optimizer.host_copy(context);
    const float* masters = copy.master().data<float>();
    return std::vector<float>(masters, masters + optimizer.slice_end());
  };
  masters_after(1);
  const std::vector<float> finite = masters_after(1);
  EXPECT_EQ(masters_after(std::numeric_limits<float>::infinity()), finite);
  EXPECT_NE(masters_after(1), finite);
  EXPECT_EQ(graphs.launches(), 3);
  testing::use_device(before);
}

}  // namespace
}  // namespace permafrost
