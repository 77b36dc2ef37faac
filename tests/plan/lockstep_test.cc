// Programs over the same weights that do different things: what they gather, keep and share.
#include <gtest/gtest.h>

#include "core/graph/ops/linear.h"
#include "parallel/plan/check.h"
#include "parallel/plan/check_gathers.h"
#include "parallel/run/executor.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::throws_error;

Value layer(Graph& g, Value x, const char* unit_name, int64_t width) {
  auto unit = g.unit(unit_name);
  return linear(g, x, g.param(std::string(unit_name) + ".weight", {width, width}, Initializer::normal(0.5f)));
}

/// Program 1 walks through both units, program 2 through the second alone.
Graph two_units(int64_t number) {
  Graph both(DType::kF32);
  const Value x = both.input("x", {{2, 6}, DType::kF32});
  both.keep(both.name(layer(both, layer(both, x, "first", 6), "second", 6), "out"));
  if (number == 1) return both;
  Graph second = Graph::sharing(both);
  const Value y = second.input("x", {{2, 6}, DType::kF32});
  second.keep(second.name(layer(second, y, "second", 6), "out"));
  return second;
}

PlanRequest request_of(bool lockstep) {
  PlanRequest request;
  request.build_graph = two_units;
  request.buckets = {1, 2};
  request.allow_all_frozen = true;
  request.lockstep = lockstep;
  request.options.forward_only = true;
  return request;
}

PlanRequest sharded(PlanRequest request) {
  request.world.ranks = 3;
  request.frozen_policy = PolicyChoice::kSharded;
  request.gather = GatherChoice::kInline;
  return request;
}

TEST(Lockstep, ProgramsMayGatherDifferentUnits) {
  EXPECT_TRUE(throws_error([] { make_plan(sharded(request_of(false))); }, ErrorKind::kInvalidArgument,
                           {"all buckets must gather the same units in the same order"}));
  const Plan plan = make_plan(sharded(request_of(true)));
  EXPECT_EQ(plan.programs[0].gathers.size(), 2u);
  EXPECT_EQ(plan.programs[1].gathers.size(), 1u);
  EXPECT_TRUE(check_gathers(plan).empty());
  EXPECT_GT(plan.slot_bytes[0], 0);
}

TEST(Lockstep, UnitsOfOneProgramAloneAreCounted) {
  PlanRequest request = sharded(request_of(true));
  request.micro_batches = 3;
  const Plan plan = make_plan(request);
  // A micro-batch is one run of each program: "first" is gathered once, "second" twice.
  EXPECT_EQ(plan.units[0].gathers, plan.slots);
  EXPECT_EQ(plan.units[1].gathers, 2 * plan.slots);
  for (int rank = 0; rank < 3; ++rank) {
    const FrozenLayout layout = plan.frozen_layout(rank);
    int64_t gathered = 0;
    for (const size_t unit : {0, 1, 1}) gathered += plan.frozen_units[unit].bytes - layout.parts(unit).count(rank);
    EXPECT_EQ(plan.traffic_of(rank).gathered_frozen, plan.micro_batches_of(rank) * gathered) << rank;
  }
  EXPECT_GT(plan.traffic.gathered_frozen, 0);
}

TEST(Lockstep, UnitsOfOneProgramAloneAreChosenByTheirUses) {
  // 16 units of 16 KiB, those with odd numbers in both programs. Eight nodes: two slots of 16 KiB, and a sharded unit
  // saves 12 KiB of a node (blocks of 4 KiB).
  const auto build = [](int64_t number) {
    Graph both(DType::kF32);
    Value value = both.input("x", {{2, 64}, DType::kF32});
    for (int i = 0; i < 16; ++i) value = layer(both, value, concat("layers.", i).c_str(), 64);
    both.keep(both.name(value, "out"));
    if (number == 1) return both;
    Graph odd = Graph::sharing(both);
    value = odd.input("x", {{2, 64}, DType::kF32});
    for (int i = 1; i < 16; i += 2) value = layer(odd, value, concat("layers.", i).c_str(), 64);
    odd.keep(odd.name(value, "out"));
    return odd;
  };
  PlanRequest request = request_of(true);
  request.build_graph = build;
  request.world = {8, 8, 1};
  const Plan resident = make_plan(request);
  request.node_memory_bytes = resident.memory.node(1) - (40 << 10);
  const Plan plan = make_plan(request);
  for (size_t unit = 0; unit < 16; ++unit) {
    SCOPED_TRACE(plan.units[unit].name + ": " + plan.units[unit].policy_reason);
    EXPECT_EQ(plan.units[unit].policy, unit % 2 == 0 && unit < 12 ? Policy::kSharded : Policy::kResident);
    if (plan.units[unit].policy == Policy::kSharded) {
      EXPECT_NE(plan.units[unit].policy_reason.find("gathered 1 time per micro-batch"), std::string::npos);
    }
  }
}

TEST(Lockstep, KeptValuesStayReadableAndPassTheChecks) {
  const Plan plan = make_plan(request_of(true));
  ProgramOptions options;
  options.forward_only = true;
  for (size_t b = 0; b < 2; ++b) {
    const auto problems = check_program(plan.graphs[b], plan.needs[b], plan.programs[b], options);
    EXPECT_TRUE(problems.empty()) << problems.front();
    const auto out = static_cast<size_t>(plan.graphs[b].find_value("out"));
    const int buffer = plan.programs[b].values[out].buffer;
    EXPECT_EQ(plan.programs[b].buffers[static_cast<size_t>(buffer)].last_step,
              static_cast<int>(plan.programs[b].steps.size()));
  }
  EXPECT_EQ(plan.memory.optimizer + plan.memory.sums + plan.memory.gradients, 0);
}

TEST(BorrowedMemory, IsTheLendersWhereWeightsLie) {
  const Plan lender_plan = make_plan(request_of(true)), plan = make_plan(request_of(true));
  const StepMemory lender(lender_plan);
  for (const ParamPlan& param : lender_plan.params)
    fill(param.initializer, 5, param.name, DType::kF32, 0,
         {static_cast<std::byte*>(lender.param(param).raw()), static_cast<size_t>(lender.param(param).bytes())});
  const StepMemory memory(plan, lender, lender_plan);
  EXPECT_EQ(memory.frozen.data(), lender.frozen.data());
  EXPECT_EQ(memory.working.data(), lender.working.data());
  EXPECT_NE(memory.arena.data(), lender.arena.data());
  Executor own(lender_plan, lender, testing::cpu_context()), borrowed(plan, memory, testing::cpu_context());
  for (Executor* executor : {&own, &borrowed}) {
    for (int64_t i = 0; i < 12; ++i) executor->value(1, "x").data<float>()[i] = static_cast<float>(i) - 5;
    executor->run(1, nullptr);
  }
  EXPECT_TRUE(testing::same_bits(own.value(1, "out"), borrowed.value(1, "out")));
}

TEST(BorrowedMemory, RefusesOtherPlaces) {
  const Plan lender_plan = make_plan(request_of(true));
  const StepMemory lender(lender_plan);
  PlanRequest trained = request_of(true);
  trained.freezing = {{"first.weight", true}};
  const Plan other = make_plan(trained);
  EXPECT_TRUE(throws_error([&] { StepMemory(other, lender, lender_plan); }, ErrorKind::kInvalidArgument,
                           {"plans that share weights must place parameter 0 alike; got first.weight"}));
  const Plan divided = make_plan(sharded(request_of(true)));
  EXPECT_TRUE(throws_error([&] { StepMemory(divided, lender, lender_plan); }, ErrorKind::kInvalidArgument,
                           {"must have the same 2 parameters, 2 units and 1 ranks; got 2, 2 and 3"}));
}

}  // namespace
}  // namespace permafrost
