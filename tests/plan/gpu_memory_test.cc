// Where memory lies when programs run on a GPU: closed forms, and what StepMemory takes from the device.
#include "parallel/plan/gpu_memory.h"

#include <gtest/gtest.h>

#include "core/base/narrow.h"
#include "core/device/cuda.h"
#include "parallel/plan/compute_copies.h"
#include "parallel/plan/plan_json.h"
#include "parallel/run/step_memory.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

constexpr int64_t kGpuMiB = int64_t{1} << 20;

PlanRequest gpu_request(const testing::ToyConfig& toy = {}) {
  PlanRequest r;
  r.build_graph = [toy](int64_t tokens) {
    testing::ToyConfig config = toy;
    config.tokens = tokens;
    return testing::toy_transformer(config);
  };
  r.buckets = {4, 8};
  r.freezing = {{"blocks.1.*", true}};
  r.prefetched_inputs = 3;
  r.world.device = DeviceKind::kCuda;
  return r;
}

/// Large enough that rounding is small.
testing::ToyConfig large_toy() {
  testing::ToyConfig toy;
  toy.width = 256, toy.hidden = 1024, toy.vocab = 2000, toy.heads = 4, toy.blocks = 6;
  return toy;
}

TEST(GpuMemory, CountsTheDeviceInClosedForm) {
  PlanRequest r = gpu_request();
  r.world.ranks = 2;
  const Plan plan = make_plan(r);
  const int64_t d = 16, f = 24, v = 11;
  // Matrices and vectors of blocks 0 and 2 and of the head, each parameter at a multiple of 64 bytes, all f32; each
  // unit at a multiple of 4096. A block: 6 vectors of 16 or 24 or 48 elements are 64, 128 or 192 bytes.
  const int64_t block =
      4 * (3 * d * d + d * d + 2 * f * d) + 2 * 64 + 192 + 64 + 2 * 64 + 128 + 64;  // norms, qkv, proj, norms, fc1, fc2
  const int64_t embed = 64 * 11, head = 2 * 64;
  EXPECT_EQ(4 * v * d, embed);
  EXPECT_EQ(plan.frozen_units[1].bytes, block);
  EXPECT_EQ(plan.frozen_units[4].bytes, head);
  const DeviceMemoryPlan& m = plan.device_memory;
  EXPECT_EQ(m.frozen, 4096 + 2 * round_up(block, 4096) + 4096) << "embed, two blocks, head; block 1 is trained";
  EXPECT_EQ(m.slots, 0);
  EXPECT_EQ(m.arena, plan.memory.arena);
  EXPECT_EQ(m.state, plan.memory.state);
  EXPECT_EQ(m.inputs, 2 * 3 * round_up(4 * 2 * 8, 64))
      << "ids, labels, weights of two texts of eight tokens, and the next";
  EXPECT_EQ(m.working, 4 * plan.trainable_space);
  EXPECT_EQ(m.sums, 8 * plan.trainable_space);
  EXPECT_EQ(m.optimizer, 12 * plan.trainable_space) << "less than a block of 4096: rank 0 has all";
  EXPECT_EQ(m.gradients, 4 * plan.trainable_space);
  EXPECT_EQ(m.norms, 8);
  EXPECT_EQ(m.tables, 12 * (48 + 80)) << "a block has twelve parameters, none of several pieces";
  EXPECT_EQ(m.constant, int64_t{544} * kGpuMiB);
  EXPECT_EQ(m.total(), m.frozen + m.arena + m.state + m.inputs + m.working + m.sums + m.optimizer + m.gradients +
                           m.norms + m.tables + m.copies + m.constant);
  EXPECT_EQ(m.copies, 0) << "all is f32";
}

TEST(GpuMemory, FrozenBiasesAreKeptInTheComputeDtypeToo) {
  testing::ToyConfig half;
  half.compute = DType::kBF16;
  PlanRequest r = gpu_request(half);
  const Plan plan = make_plan(r);
  // Of two frozen blocks: qkv 48, proj 16, fc1 24, fc2 16 elements of two bytes, each at a multiple of 256.
  EXPECT_EQ(plan.device_memory.copies, 2 * 4 * ComputeCopies::kAlignment);
  const ComputeCopies copies(plan);
  ASSERT_EQ(copies.all().size(), 8u);
  for (const ComputeCopies::Copy& copy : copies.all()) {
    EXPECT_EQ(copy.from.region, Region::kFrozen);
    EXPECT_EQ(copy.from.spec.dtype, DType::kF32);
    EXPECT_EQ(copy.dtype, DType::kBF16);
    EXPECT_EQ(copy.from.spec.shape.rank(), 1);
  }
  r.world.device = DeviceKind::kCpu;
  EXPECT_EQ(ComputeCopies(make_plan(r)).bytes(), 0);
}

TEST(GpuMemory, TheHostKeepsFrozenWeightsInputsAndStaging) {
  PlanRequest r = gpu_request();
  r.world.ranks = 2;
  const Plan plan = make_plan(r);
  EXPECT_EQ(plan.host_memory.node_frozen, plan.memory.node_frozen);
  EXPECT_EQ(plan.host_memory.inputs, 2 * plan.device_memory.inputs) << "the one in use and three ahead";
  EXPECT_EQ(plan.host_memory.staging, plan.memory.sums);
  EXPECT_EQ(plan.host_memory.working, plan.memory.working);
  EXPECT_EQ(
      plan.host_bytes_of_node(),
      plan.memory.node_frozen + 2 * (plan.host_memory.working + plan.host_memory.inputs + plan.host_memory.staging));

  r.device_collectives = true;
  EXPECT_EQ(make_plan(r).host_memory.staging, 0) << "nothing passes through the host";
  r.device_collectives = false;
  r.world.ranks = 1;
  EXPECT_EQ(make_plan(r).host_memory.staging, 0) << "nothing to exchange";
}

TEST(GpuMemory, ShardedUnitsTakeTwoSlotsAndPartsWhereGpusExchange) {
  PlanRequest r = gpu_request(large_toy());
  r.frozen_policy = PolicyChoice::kSharded;
  const Plan streamed = make_plan(r);
  EXPECT_EQ(streamed.device_memory.frozen, 0);
  EXPECT_EQ(streamed.device_memory.slots, streamed.slot_begin(kGatherSlots));
  EXPECT_GT(streamed.device_memory.slots, 0);
  EXPECT_EQ(streamed.host_memory.node_frozen, make_plan(gpu_request(large_toy())).memory.node_frozen);

  r.world.ranks = r.world.nodes = 4;
  const Plan over_hosts = make_plan(r);
  EXPECT_EQ(over_hosts.host_memory.staging, over_hosts.memory.sums + *std::ranges::max_element(over_hosts.slot_bytes));
  r.device_collectives = true;
  const Plan between_gpus = make_plan(r);
  int64_t parts = 0;
  for (const FrozenUnit& unit : between_gpus.frozen_units)
    parts += round_up(div_up(round_up(unit.bytes, 4096), 4), 4096);
  EXPECT_EQ(between_gpus.device_memory.frozen, parts);
  EXPECT_EQ(over_hosts.device_memory.frozen, parts);
  EXPECT_EQ(between_gpus.host_memory.staging, 0);
}

TEST(GpuMemory, APlanForCpuHasNone) {
  PlanRequest r = gpu_request();
  r.world.device = DeviceKind::kCpu;
  r.world.ranks = 2;
  r.device_memory_bytes = 1;  // says nothing
  const Plan plan = make_plan(r);
  EXPECT_EQ(plan.device_memory.total(), 0);
  EXPECT_EQ(plan.host_memory.node(2), 0);
  EXPECT_EQ(plan.host_bytes_of_node(), plan.memory.node(2));
  EXPECT_EQ(plan.host_bytes_of_rank(), plan.memory.total());
  EXPECT_FALSE(plan_json(plan).contains("device_memory"));
  EXPECT_EQ(plan.table().find("memory on each GPU"), std::string::npos);
}

TEST(GpuMemory, TextAndJsonHaveBothColumns) {
  const Plan plan = make_plan(gpu_request());
  const std::string table = plan.table();
  for (const char* part : {"memory on each GPU: ", " = frozen ", " + constant 544.00 MiB",
                           "memory on the host per rank: ", " + staging ", "; per node: "})
    EXPECT_NE(table.find(part), std::string::npos) << part << '\n' << table;
  const OrderedJson j = plan_json(plan);
  int64_t sum = 0;
  for (const auto& [key, bytes] : j["device_memory"].items())
    if (key != "total_bytes") sum += bytes.get<int64_t>();
  EXPECT_EQ(j["device_memory"]["total_bytes"], sum);
  EXPECT_EQ(sum, plan.device_memory.total());
  EXPECT_EQ(j["node_memory"]["total_bytes"], plan.host_bytes_of_node());
}

// ---- Policies of units that are left to the plan.

TEST(GpuMemory, WhatDoesNotFitOnTheDeviceIsCopiedFromTheHost) {
  PlanRequest r = gpu_request(large_toy());
  const Plan resident = make_plan(r);
  const int64_t all = resident.device_memory.total();
  const auto sharded_units = [](const Plan& plan) {
    return std::ranges::count_if(plan.frozen_units, [](const FrozenUnit& u) { return u.sharded; });
  };
  EXPECT_EQ(sharded_units(resident), 0) << "nothing is known of the device";
  r.device_memory_bytes = all;
  const Plan fits = make_plan(r);
  EXPECT_EQ(sharded_units(fits), 0);
  EXPECT_NE(fits.units[2].policy_reason, fits.units[3].policy_reason) << "the trained one has nothing frozen";
  EXPECT_NE(fits.units[3].policy_reason.find("fits: a GPU needs "), std::string::npos) << fits.units[3].policy_reason;

  r.device_memory_bytes = all - 1;
  const Plan streams = make_plan(r);
  EXPECT_GT(sharded_units(streams), 0);
  EXPECT_LT(sharded_units(streams), std::ssize(streams.units)) << "not more than need be";
  EXPECT_LE(streams.device_memory.total(), all - 1);
  bool said = false;
  for (size_t u = 0; u < streams.units.size(); ++u)
    if (streams.frozen_units[u].sharded)
      said |= streams.units[u].policy_reason.starts_with("with all weights resident a GPU would need ") &&
              streams.units[u].policy_reason.find("; copied ") != std::string::npos;
  EXPECT_TRUE(said);
  EXPECT_EQ(streams.host_memory.node_frozen, resident.host_memory.node_frozen);

  r.device_memory_bytes = 1;  // fits in no way: as little as possible is taken
  const Plan least = make_plan(r);
  EXPECT_LT(least.device_memory.total(), streams.device_memory.total());
}

// ---- What StepMemory takes.

TEST(GpuMemory, StepMemoryTakesWhatIsForecast) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  for (const PolicyChoice policy : {PolicyChoice::kResident, PolicyChoice::kSharded}) {
    PlanRequest r = gpu_request(large_toy());
    r.buckets = {64};
    r.frozen_policy = policy;
    const Plan plan = make_plan(r);
    const DeviceMemoryPlan& m = plan.device_memory;
    const int64_t before = cuda::device_info(0).free_bytes;
    const StepMemory memory(plan, 0, nullptr, Device::cuda(0));
    const int64_t taken = before - cuda::device_info(0).free_bytes;
    const int64_t forecast = m.frozen + m.slots + m.working + m.arena + m.inputs + m.state;
    // A device hands out whole pages: at most six allocations are rounded up.
    const int64_t page = cuda::device_info(0).name == "emulated" ? 4096 : 2 * kGpuMiB;
    EXPECT_GE(taken, forecast);
    EXPECT_LE(taken, forecast + 6 * page);
    EXPECT_GT(forecast, 600 * 4096) << "or rounding hides everything";
    EXPECT_TRUE(memory.gathered_memory().empty()) << "units are copied from the host";
  }
}

/// As what is registered for a gather must be: the same on all ranks, though parts are not.
TEST(GpuMemory, PartsThatDevicesGatherHaveTheirPlaceAndSlotsTheAllocatorsMemory) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  PlanRequest r = gpu_request(large_toy());
  r.buckets = {64};
  r.frozen_policy = PolicyChoice::kSharded;
  r.world.ranks = r.world.nodes = 3;
  const Plan plan = make_plan(r);
  ASSERT_EQ(plan.gather.kind, GatherKind::kCollective);
  std::vector<std::vector<int64_t>> places;
  bool uneven = false;
  for (int rank = 0; rank < 3; ++rank) {
    std::vector<std::string> asked;
    const StepMemory memory(plan, rank, nullptr, Device::cuda(0), [&](std::string name, int64_t bytes, Device device) {
      asked.push_back(name);
      return Buffer(std::move(name), bytes, device);
    });
    EXPECT_EQ(asked, (std::vector<std::string>{"slots", "parts of frozen parameters"}));
    const std::vector<Tensor> gathered = memory.gathered_memory();
    ASSERT_EQ(gathered.size(), 2u);
    const Tensor &parts = gathered[0], &slots = gathered[1];
    EXPECT_EQ(parts.bytes(), plan.device_memory.frozen);
    EXPECT_EQ(slots.bytes(), plan.device_memory.slots);
    EXPECT_EQ(memory.slot(0), slots.raw());
    std::vector<int64_t>& of_rank = places.emplace_back();
    for (size_t unit = 0; unit < plan.frozen_units.size(); ++unit) {
      if (!plan.frozen_units[unit].sharded) continue;  // nothing of it is frozen
      const Tensor part = memory.device_part(unit);
      const int64_t at = static_cast<std::byte*>(part.raw()) - static_cast<std::byte*>(parts.raw());
      of_rank.push_back(at);
      EXPECT_EQ(part.bytes(), memory.layout.parts(unit).count(rank));
      EXPECT_TRUE(at >= 0 && at + part.bytes() <= parts.bytes());
      uneven = uneven || part.bytes() != memory.layout.parts(unit).count(0);
    }
    EXPECT_EQ(of_rank, places[0]);
  }
  EXPECT_TRUE(uneven) << "or this shows nothing";
}

}  // namespace
}  // namespace permafrost
