#include "launch/bench/step_profile.h"

#include <numeric>

#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

class StepProfileTest : public TrainerTest {
 protected:
  static void train(Trainer& trainer, StepProfile& profile, int steps) {
    trainer.observe(&profile);
    for (int i = 0; i < steps; ++i) {
      profile.begin_training_step();
      const StepMetrics metrics = trainer.train_step(false);
      profile.end_training_step(metrics.step_ms / 1e3, trainer.last_step());
    }
    trainer.observe(nullptr);
  }
};

TEST_F(StepProfileTest, SeesEveryStepOfTheProgramsThatRan) {
  with_trainer({}, 2, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    trainer.train_step(false);  // which runs twice
    const std::vector<int64_t> before = trainer.program_runs();
    StepProfile profile(plan, runtime.pool, 0, 3);
    train(trainer, profile, 3);
    double steps = 0, calls = 0;
    for (size_t b = 0; b < plan.programs.size(); ++b)
      steps += static_cast<double>(trainer.program_runs()[b] - before[b]) *
               static_cast<double>(plan.programs[b].steps.size());
    EXPECT_GT(steps, 0);
    for (const ProfiledOp& op : profile.operations()) calls += op.calls;
    EXPECT_NEAR(calls, steps / 3, 1e-6 * steps);  // a sum of means in f64: rounding alone, and far below one call
    EXPECT_EQ(profile.overhead().between.size(), static_cast<size_t>(steps));
    EXPECT_EQ(profile.overhead().within.size(), static_cast<size_t>(steps));
    for (const double us : profile.overhead().sum()) EXPECT_GE(us, 0);
  });
}

TEST_F(StepProfileTest, GroupsHoldWhatTheirOperationsDo) {
  with_trainer({}, 1, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    StepProfile profile(plan, runtime.pool, 0, 2);
    train(trainer, profile, 2);
    const auto sum = [](const std::vector<ProfiledOp>& ops, auto value) {
      return std::accumulate(ops.begin(), ops.end(), 0.0,
                             [&](double s, const ProfiledOp& op) { return s + value(op); });
    };
    const auto groups = profile.groups(), operations = profile.operations();
    EXPECT_LT(groups.size(), operations.size());
    const auto calls = [](const ProfiledOp& op) { return op.calls; };
    const auto seconds = [](const ProfiledOp& op) { return op.mean; };
    const auto flops = [](const ProfiledOp& op) { return op.flops * op.calls; };
    EXPECT_DOUBLE_EQ(sum(groups, calls), sum(operations, calls));
    // Here and below: the same numbers added in another order, in f64.
    EXPECT_NEAR(sum(groups, seconds), sum(operations, seconds), 1e-9);
    // The programs' work, as the plan counts it.
    double expected = 0;
    for (size_t b = 0; b < plan.programs.size(); ++b)
      expected += static_cast<double>(trainer.program_runs()[b]) * plan.program_flops(b) / 2;
    EXPECT_NEAR(sum(operations, flops), expected, 1e-9 * expected);
    EXPECT_NEAR(sum(groups, flops), expected, 1e-9 * expected);
    for (size_t i = 1; i < groups.size(); ++i) EXPECT_GE(groups[i - 1].mean, groups[i].mean);
    for (const ProfiledOp& op : operations) {
      EXPECT_GT(op.bytes, 0) << op.kind << op.name;
      EXPECT_FALSE(op.unit.empty()) << op.kind << op.name;
      EXPECT_FALSE(op.name.empty()) << op.kind;
      EXPECT_LE(op.outside_us * op.calls, op.mean * 1e6 * 1.000001) << op.kind << op.name;
    }
  });
}

TEST_F(StepProfileTest, PartsAreTheStep) {
  with_trainer({}, 1, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    StepProfile profile(plan, runtime.pool, 0, 1);
    train(trainer, profile, 1);
    double parts = 0, other = 0;
    for (const auto& [name, ms] : profile.parts()) {
      EXPECT_GE(ms, 0) << name;
      parts += ms;
      if (name == "other") other = ms;
    }
    const double step = profile.median_step_seconds() * 1e3;
    // What is left out are the profile's own notes between operations.
    EXPECT_LE(parts, step * 1.000001);
    EXPECT_LE(other, step);
    EXPECT_GT(parts, 0);
  });
}

TEST_F(StepProfileTest, ChangesNoLossAndAllocatesNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "a sanitizer counts allocations itself";
  std::vector<double> plain, profiled;
  with_trainer({"train.max_steps=8"}, 2, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
    for (int i = 0; i < 7; ++i) plain.push_back(trainer.train_step(false).loss);
  });
  with_trainer({"train.max_steps=8"}, 2,
               [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
                 StepProfile profile(plan, runtime.pool, 0, 7);
                 trainer.observe(&profile);
                 on_every_thread(runtime.pool, [] { testing::register_counted_thread(); });
                 for (int i = 0; i < 7; ++i) {
                   if (i >= 3) testing::begin_counting_allocations(testing::CountedThreads::kRegistered);
                   profile.begin_training_step();
                   const StepMetrics metrics = trainer.train_step(false);
                   profile.end_training_step(metrics.step_ms / 1e3, trainer.last_step());
                   if (i >= 3) {
                     EXPECT_EQ(testing::end_counting_allocations().calls, 0) << i;
                   }
                   profiled.push_back(metrics.loss);
                 }
                 trainer.observe(nullptr);
               });
  EXPECT_EQ(plain, profiled);
}

TEST_F(StepProfileTest, HasRoomForTheStepsItWasMadeFor) {
  with_trainer({}, 1, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    StepProfile profile(plan, runtime.pool, 0, 1);
    train(trainer, profile, 1);
    try {
      profile.begin_training_step();
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), "step profile: there is room for 1 steps; got one more");
    }
  });
}

}  // namespace
}  // namespace permafrost
