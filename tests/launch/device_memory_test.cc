// A GPU that is too small: what the plan makes of it, and what is said before anything is allocated.
#include "launch/training/device_memory.h"

#include "configs/load.h"
#include "launch/training/agreement.h"
#include "parallel/group/hierarchical_group.h"
#include "parallel/group/inproc_group.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::throws_error;

constexpr int64_t kGibibyte = int64_t{1} << 30;

Plan gpu_plan() {
  Plan plan;
  plan.world.device = DeviceKind::kCuda;
  plan.compute = DType::kBF16;
  plan.gather.kind = GatherKind::kCopy;
  plan.frozen_units = {{0, 9 * kGibibyte, false}};
  plan.device_memory.frozen = 9 * kGibibyte;
  plan.device_memory.arena = 4 * kGibibyte;
  plan.device_memory.sums = 2 * kGibibyte;
  plan.device_memory.optimizer = kGibibyte;
  plan.device_memory.inputs = kGibibyte / 2;
  plan.device_memory.constant = kGibibyte / 2;
  return plan;
}

TEST(DeviceMemory, WhatFitsOrIsNotKnownPasses) {
  EXPECT_NO_THROW(check_device_memory(gpu_plan(), 17 * kGibibyte));
  EXPECT_NO_THROW(check_device_memory(gpu_plan(), 0));
  EXPECT_NO_THROW(check_device_memory(Plan(), 1)) << "a plan for CPU needs nothing";
}

TEST(DeviceMemory, TheMessageHasNumbersTheLargestItemsAndWaysOut) {
  EXPECT_TRUE(throws_error(
      [] { check_device_memory(gpu_plan(), 16 * kGibibyte); }, ErrorKind::kConfig,
      {"memory: a rank needs 17.00 GiB of its GPU; got 16.00 GiB free, short by 1.00 GiB. Largest: frozen 9.00 GiB, "
       "arena 4.00 GiB, sums 2.00 GiB, optimizer 1.00 GiB; context and libraries 0.50 GiB. Ways out: a "
       "smaller train.micro_batch shrinks arena and inputs, parallel.frozen_policy SHARDED keeps frozen weights on the "
       "host and copies them unit by unit into two slots, fewer trainable parameters shrink sums and optimizer, or a "
       "GPU with more memory (other processes on it count too)"}));
}

TEST(DeviceMemory, TheMessageNamesOnlyWaysThatLeadSomewhere) {
  const auto message = [](const Plan& plan) {
    try {
      check_device_memory(plan, kGibibyte);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  Plan plan = gpu_plan();
  plan.frozen_units[0].sharded = true;
  plan.compute = DType::kF32;
  plan.world.ranks = 2;
  const std::string told = message(plan);
  EXPECT_EQ(told.find("SHARDED"), std::string::npos) << "it is already: " << told;
  EXPECT_NE(told.find("bf16 compute halves arena and frozen weights"), std::string::npos) << told;
  EXPECT_NE(told.find("fewer ranks on each GPU"), std::string::npos) << told;
  plan.frozen_units[0].sharded = false;
  plan.world.nodes = 2;
  EXPECT_NE(message(plan).find("on the host and gathers them"), std::string::npos) << message(plan);
}

TEST(DeviceMemory, GeneratingTextsBesideTrainingNeedsRoomForBoth) {
  const Plan lender = gpu_plan();
  Plan beside = gpu_plan();  // 4 GiB of arena and a half of inputs; frozen weights are lent
  EXPECT_NO_THROW(check_device_memory_beside(beside, lender, 17 * kGibibyte + 9 * kGibibyte / 2));
  EXPECT_TRUE(throws_error([&] { check_device_memory_beside(beside, lender, 21 * kGibibyte); }, ErrorKind::kConfig,
                           {"needs 21.50 GiB of its GPU for training and for generating texts beside it; got 21.00",
                            "smaller evaluation.batch"}));
}

TEST(DeviceMemory, TheHostIsCheckedForWhatTheHostKeeps) {
  Plan plan = gpu_plan();
  plan.memory.arena = 400 * kGibibyte;  // on the device
  plan.memory.node_frozen = plan.host_memory.node_frozen = 3 * kGibibyte;
  plan.host_memory.staging = kGibibyte;
  EXPECT_NO_THROW(check_memory(plan, 5 * kGibibyte));
  EXPECT_TRUE(throws_error([&] { check_memory(plan, 4 * kGibibyte); }, ErrorKind::kConfig,
                           {"1 ranks of a node need 4.59 GiB; got 4.00 GiB",
                            "Per rank: working 0.00 GiB, inputs 0.00 GiB, staging 1.00 GiB. Ways out: a smaller "
                            "train.micro_batch or data.prefetch shrinks inputs"}));
}

// ---- From what ranks find to the plan that they agree on. No GPU: the bytes are made up.

config::Config gpu_config() {
  return config::load_config(
             std::string(PERMAFROST_SOURCE) + "/configs/quickstart.textproto",
             {"parallel.device=CUDA", "model.epalm.text.layers=24", "freeze[0].pattern=connector*",
              "freeze+={pattern: \"*\" trainable: false}", "data.max_text_tokens=16", "data.length_buckets=16"})
      .config;
}

/// The plan of ranks that are threads, on a machine each, of which rank r found `found[r]` bytes free; `sharing` ranks
/// are on the machine.
Plan agreed(const std::vector<int64_t>& found, int sharing = 1) {
  const auto ranks = static_cast<int>(found.size());
  Plan plan;
  run_inproc(ranks, [&](Group& world) {
    ThreadPool pool(1);
    HierarchicalGroup group(world, std::vector<int>(found.size(), 0), {});
    Runtime runtime{group, pool, {ranks, 1, 1}, group.node(), ""};
    runtime.place.device = DeviceKind::kCuda;
    runtime.ranks_on_gpu = sharing;
    runtime.device_free_bytes = found[static_cast<size_t>(world.rank())];
    Plan mine = agreed_plan(gpu_config(), runtime);
    if (runtime.first()) plan = std::move(mine);
  });
  return plan;
}

int64_t sharded_units(const Plan& plan) {
  return std::ranges::count_if(plan.frozen_units, [](const FrozenUnit& unit) { return unit.sharded; });
}

TEST(DeviceMemory, RanksPlanForTheLeastOfThem) {
  const Plan unknown = agreed({0});
  EXPECT_EQ(sharded_units(unknown), 0);
  const int64_t needed = agreed({0, 0}).device_memory.total();
  EXPECT_EQ(sharded_units(agreed({needed, needed})), 0);
  const Plan plan = agreed({needed, needed - 1});
  EXPECT_GT(sharded_units(plan), 0) << "rank 0 would have room, but ranks plan alike";
  EXPECT_LT(plan.device_memory.total(), needed);
  EXPECT_GT(sharded_units(agreed({2 * needed - 2, 2 * needed - 2}, 2)), 0) << "two ranks share a GPU";
}

TEST(DeviceMemory, WhatFitsInNoWayIsRefused) {
  EXPECT_TRUE(throws_error([] { agreed({kGibibyte / 2}); }, ErrorKind::kConfig,
                           {"memory: a rank needs ", " of its GPU; got 0.50 GiB free, short by "}));
}

}  // namespace
}  // namespace permafrost
