// The replay of gathers accepts what the planner makes, and complains about plans that were damaged.
#include "parallel/plan/check_gathers.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

PlanRequest toy_request(GatherChoice gather = GatherChoice::kInline) {
  PlanRequest request;
  request.build_graph = [](int64_t tokens) {
    testing::ToyConfig config;
    config.tokens = tokens;
    return testing::toy_transformer(config);
  };
  request.buckets = {4, 7};
  request.freezing = {{"blocks.1.norm*", true}};
  request.world.ranks = 3;
  request.frozen_policy = PolicyChoice::kSharded;
  request.gather = gather;
  return request;
}

std::string problems_of(const Plan& plan) {
  std::string all;
  for (const std::string& problem : check_gathers(plan)) all += problem + "\n";
  return all;
}

TEST(CheckGathers, AcceptsEveryMethodAndMixture) {
  for (const GatherChoice gather : {GatherChoice::kInPlace, GatherChoice::kInline, GatherChoice::kPrefetch})
    for (const char* resident : {"nothing", "embed*", "blocks.1", "*"})
      for (const int nodes : {1, 3}) {
        PlanRequest request = toy_request(gather);
        if (nodes > 1 && gather == GatherChoice::kInPlace) continue;
        request.world.nodes = nodes;
        if (std::string(resident) != "nothing") request.policies = {{resident, PolicyChoice::kResident}};
        const Plan plan = make_plan(request);
        EXPECT_EQ(problems_of(plan), "") << resident;
        EXPECT_EQ(plan.programs[0].gathers.empty(), gather == GatherChoice::kInPlace || std::string(resident) == "*");
      }
}

/// The plan is damaged by `damage`; the replay must say `words`.
void expect_complaint(const std::function<void(Plan&)>& damage, const std::string& words) {
  Plan plan = make_plan(toy_request());
  ASSERT_GE(plan.programs[0].gathers.size(), 4u);
  damage(plan);
  const std::string problems = problems_of(plan);
  EXPECT_NE(problems.find(words), std::string::npos) << "expected '" << words << "' in:\n" << problems;
}

TEST(CheckGathers, SeesASlotFilledWhileItsUnitIsStillRead) {
  expect_complaint([](Plan& plan) { plan.programs[0].gathers[2].start_step -= 1; }, "which is being filled");
}

TEST(CheckGathers, SeesAUnitThatComesTooLate) {
  expect_complaint([](Plan& plan) { plan.programs[0].gathers[1].first_use += 1; }, "which is being filled");
}

TEST(CheckGathers, SeesAUnitInTheOtherSlot) {
  expect_complaint([](Plan& plan) { plan.programs[0].gathers[1].slot ^= 1; }, "is read from slot");
}

TEST(CheckGathers, SeesAMissingGather) {
  expect_complaint([](Plan& plan) { plan.programs[0].gathers.pop_back(); }, "is read from slot");
}

TEST(CheckGathers, SeesAnotherUnit) {
  expect_complaint([](Plan& plan) { plan.programs[0].gathers[0].unit = plan.programs[0].gathers[1].unit; },
                   "which holds unit");
}

TEST(CheckGathers, SeesAWrongPlaceInTheSlotAndAParameterReadFromNowhere) {
  const auto first_from_slot = [](Plan& plan) -> TensorRef& {
    for (PlanStep& step : plan.programs[1].steps)
      for (TensorRef& ref : step.params)
        if (ref.region == Region::kSlots) return ref;
    throw std::runtime_error("no parameter is read from a slot");
  };
  expect_complaint([&](Plan& plan) { first_from_slot(plan).offset += 64; }, "of its slot");
  expect_complaint([&](Plan& plan) { first_from_slot(plan).region = Region::kFrozen; }, "must be read from a slot");
}

TEST(CheckGathers, SeesASlotThatIsTooSmall) {
  expect_complaint([](Plan& plan) { plan.slot_bytes = {64, 64}; }, "does not fit its slot");
}

}  // namespace
}  // namespace permafrost
