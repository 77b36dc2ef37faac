#include "optim/sharded_adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

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

/// Masters and working copies after three updates on `ranks` ranks, as one rank would have them.
std::pair<std::vector<float>, std::vector<std::byte>> train(int ranks, DType compute) {
  const Plan p = plan(ranks, compute);
  std::vector<float> masters(static_cast<size_t>(p.trainable_space));
  std::vector<std::byte> working(static_cast<size_t>(p.memory.working));
  for (int rank = 0; rank < ranks; ++rank) {
    StepMemory memory(p);
    ShardedAdamw optimizer(p, rank, config());
    const int64_t begin = optimizer.slice_begin(), size = optimizer.slice_end() - begin;
    for (int64_t i = 0; i < size; ++i) optimizer.master().data<float>()[i] = initial(begin + i);
    optimizer.refresh_working(memory);
    testing::OwnedTensor gradient(DType::kF32, {size});
    for (int step = 1; step <= 3; ++step) {
      for (int64_t i = 0; i < size; ++i) gradient.view().data<float>()[i] = gradient_at(begin + i, step);
      optimizer.update(testing::cpu_context(), gradient, 0.5, step == 2 ? 0.1 : 1.0, step, memory);
    }
    std::copy_n(optimizer.master().data<float>(), size, masters.begin() + begin);
    const int64_t from = p.working_byte(begin), to = p.working_byte(begin + size);
    std::memcpy(working.data() + from, memory.working.data() + from, static_cast<size_t>(to - from));
  }
  return {masters, working};
}

TEST(ShardedAdamw, RanksChangeNoBit) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const auto one = train(1, compute);
    for (int ranks = 2; ranks <= 5; ++ranks) EXPECT_EQ(one, train(ranks, compute)) << ranks;
  }
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

TEST(ShardedAdamw, ClipsByTheGlobalNorm) {
  const Plan p = plan(1, DType::kF32);
  AdamwConfig c = config();
  EXPECT_EQ(ShardedAdamw(p, 0, c).clip_scale(1e9), 1.0);
  c.clip_norm = 2.0;
  const ShardedAdamw optimizer(p, 0, c);
  EXPECT_EQ(optimizer.clip_scale(1.0), 1.0);
  EXPECT_DOUBLE_EQ(optimizer.clip_scale(8.0), 2.0 / (8.0 + 1e-6));
}

}  // namespace
}  // namespace permafrost
