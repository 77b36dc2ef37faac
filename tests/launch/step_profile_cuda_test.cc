// Profiles of programs on a GPU, or on its emulation, whose clock passes with each piece of work and not between them.
#include <algorithm>

#include "core/device/cuda.h"
#include "core/device/stream.h"
#include "launch/bench/bench_step.h"
#include "tests/launch/trainer_fixture.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

class StepProfileCuda : public TrainerTest {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    TrainerTest::SetUp();
  }
  static bool emulated() { return cuda::device_info(0).name == "emulated"; }
  static Overrides on_gpu(Overrides more = {}) {
    more.insert(more.begin(), {"train.global_batch=2", "train.micro_batch=1", "train.max_steps=5",
                               "parallel.device=CUDA", "parallel.tune_products=false"});
    return on_smaller_model(more);
  }
  static StepProfile profile_of(const Plan& plan, Runtime& runtime, int64_t steps) {
    return {plan, runtime.pool, runtime.rank(), steps, runtime.stream->queue()};
  }
  static double step(Trainer& trainer, StepProfile& profile) {
    trainer.observe(&profile);
    trainer.observe(&profile, nullptr);
    profile.begin_training_step();
    const StepMetrics metrics = trainer.train_step(false);
    profile.end_training_step(metrics.step_ms / 1e3, trainer.last_step());
    trainer.observe(nullptr);
    trainer.observe(nullptr, nullptr);
    return metrics.loss;
  }
  static double ms_of(const StepProfile& profile, const std::string& part) {
    for (const auto& [name, ms] : profile.parts())
      if (name == part) return ms;
    ADD_FAILURE() << "no part " << part;
    return -1;
  }
};

TEST_F(StepProfileCuda, TimesEveryOperationOnTheDevice) {
  with_trainer(on_gpu(), 1, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    trainer.train_step(false);
    trainer.train_step(false);
    const int64_t launched = trainer.graph_launches();
    EXPECT_GT(launched, 0);
    StepProfile profile = profile_of(plan, runtime, 2);
    for (int i = 0; i < 2; ++i) step(trainer, profile);
    EXPECT_EQ(trainer.graph_launches(), launched) << "the operations of a graph cannot be told apart";
    const std::vector<ProfiledOp> operations = profile.operations(), groups = profile.groups();
    ASSERT_EQ(operations.size(), plan.programs[0].steps.size());
    double seconds = 0, grouped = 0;
    for (size_t i = 0; i < operations.size(); ++i) {
      const ProfiledOp& op = operations[i];
      EXPECT_EQ(op.value, describe_step(plan, 0, i).value);
      EXPECT_EQ(op.calls, 2) << op.kind << op.name;  // micro-batches of a step
      EXPECT_GE(op.seconds, 0) << op.kind << op.name;
      if (op.kind == "linear") {
        EXPECT_GT(op.seconds, 0) << op.name;
      }
      seconds += op.mean;
    }
    EXPECT_LT(groups.size(), operations.size());
    for (const ProfiledOp& group : groups) grouped += group.mean;
    EXPECT_NEAR(grouped, seconds, 1e-9 * seconds);  // the same numbers in another order, in f64
    EXPECT_EQ(profile.overhead().whole.size(), 2 * 2 * operations.size());
    EXPECT_EQ(profile.overhead().between.size(), 2 * 2 * (operations.size() - 1)) << "of an operation and the next one";
    EXPECT_TRUE(profile.overhead().within.empty()) << "a device has no thread pool";
    trainer.train_step(false);
    EXPECT_GT(trainer.graph_launches(), launched) << "behind a profile as before it";
  });
}

TEST_F(StepProfileCuda, PartsAreTheTimeOfTheDevice) {
  with_trainer(on_gpu(), 1, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    trainer.train_step(false);
    StepProfile profile = profile_of(plan, runtime, 1);
    step(trainer, profile);
    const double device_ms = trainer.last_step().device_ms;
    double operations = 0, parts = 0;
    for (const ProfiledOp& op : profile.operations()) operations += op.seconds * 1e3;
    EXPECT_NEAR(ms_of(profile, "operations"), operations, 1e-9 * operations);  // in another order, as above
    std::vector<std::string> names;
    for (const auto& [name, ms] : profile.parts()) {
      names.push_back(name);
      parts += ms;
      // Each is the difference of times that are known to half a microsecond.
      if (name != "other") {
        EXPECT_GE(ms, emulated() ? -1e-6 * device_ms : -1e-3 * static_cast<double>(plan.programs[0].steps.size()))
            << name;
      }
    }
    EXPECT_EQ(names, (std::vector<std::string>{"operations", "between operations", "waiting for sharded weights",
                                               "around operations", "reduce_gradients", "gather_norms", "optimizer",
                                               "gather_working", "other"}));
    const double step_ms = profile.median_step_seconds() * 1e3;
    // Differences and sums of the same f64 numbers: some roundings of the larger.
    EXPECT_NEAR(parts, step_ms, 1e-9 * std::max(step_ms, device_ms));
    EXPECT_NEAR(parts - ms_of(profile, "other"), device_ms, 1e-9 * std::max(step_ms, device_ms));
    for (const char* phase : {"gather_norms", "optimizer"}) EXPECT_GT(ms_of(profile, phase), 0) << phase;
    EXPECT_EQ(ms_of(profile, "waiting for sharded weights"), 0) << "there are none";
    if (!emulated()) return;
    // A piece of work, which is what there is between two marks, takes this clock a microsecond and more.
    EXPECT_EQ(ms_of(profile, "between operations"), 0) << "the clock stands still there";
    const double around = ms_of(profile, "around operations");
    EXPECT_GT(around, 0) << "inputs, ends of sums, losses";
    EXPECT_LT(around, 2 * 16e-3) << "and no operation of the two programs";
  });
}

TEST_F(StepProfileCuda, WaitsForShardedWeightsAreNoOperations) {
  const Overrides sharded = on_gpu(
      {"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}", "parallel.frozen_policy=SHARDED"});
  with_trainer(sharded, 1, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    ASSERT_FALSE(plan.programs[0].gathers.empty());
    trainer.train_step(false);
    StepProfile profile = profile_of(plan, runtime, 1);
    step(trainer, profile);
    const std::vector<ProfiledOp> operations = profile.operations();
    EXPECT_EQ(operations.size(), plan.programs[0].steps.size());
    EXPECT_LT(profile.overhead().between.size(), 2 * (operations.size() - 1)) << "waits stand by themselves";
    EXPECT_GE(ms_of(profile, "waiting for sharded weights"), 0);
    EXPECT_GE(ms_of(profile, "between operations"), 0);
  });
}

TEST_F(StepProfileCuda, ChangesNoLossAndTakesNoMemoryInAStep) {
  std::vector<double> plain, profiled;
  std::vector<int64_t> plain_allocations, allocations;
  const auto counted = [](std::vector<int64_t>& calls, const std::function<double()>& take) {
    if (!testing::can_count_allocations()) return take();
    testing::register_counted_thread();
    testing::begin_counting_allocations(testing::CountedThreads::kRegistered);
    const double loss = take();
    calls.push_back(testing::end_counting_allocations().calls);
    return loss;
  };
  with_trainer(on_gpu({"parallel.cuda_graphs=false"}), 1,
               [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
                 for (int i = 0; i < 5; ++i)
                   plain.push_back(counted(plain_allocations, [&] { return trainer.train_step(false).loss; }));
               });
  with_trainer(on_gpu(), 1, [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    StepProfile profile = profile_of(plan, runtime, 5);
    int64_t free_bytes = 0;
    for (int i = 0; i < 5; ++i) {
      profiled.push_back(counted(allocations, [&] { return step(trainer, profile); }));
      if (i == 0) free_bytes = cuda::device_info(0).free_bytes;
      if (emulated()) {
        EXPECT_EQ(cuda::device_info(0).free_bytes, free_bytes);
      }
    }
  });
  EXPECT_EQ(profiled, plain);
  // Others may use a GPU, and its driver's memory is its own; what the emulation takes is the same every time.
  if (emulated()) {
    EXPECT_EQ(allocations, plain_allocations);
  }
}

TEST_F(StepProfileCuda, SaysWhoseTimesTheyAre) {
  with_trainer(on_gpu(), 1, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    StepProfile profile = profile_of(plan, runtime, 2);
    for (int i = 0; i < 2; ++i) step(trainer, profile);
    const std::string table = profile.table();
    for (const char* text :
         {"operations of rank 0 on the device, by kind and shape", "by the clock of the device, median over 2 steps",
          "programs were given operation by operation, not as graphs", "GFLOP/s     GB/s  operation", "linear forward",
          "linear backward", "sum_gradient", "parts of a step", "between operations", "around operations", "optimizer",
          "the host meanwhile", "filling inputs", "vote", "a whole operation"})
      EXPECT_NE(table.find(text), std::string::npos) << text << "\n" << table;
    for (const char* text : {"outside", "executor overhead", "thread pool"})
      EXPECT_EQ(table.find(text), std::string::npos) << text << "\n" << table;
    const OrderedJson json = profile.json();
    EXPECT_EQ(json["clock"], "device");
    EXPECT_EQ(json["graphs"], false);
    EXPECT_GT(json["device_ms"], 0);
    EXPECT_EQ(json["parts_ms"].size(), profile.parts().size());
    for (const char* part : {"waiting for data", "filling inputs", "programs", "vote", "optimizer"})
      EXPECT_GE(json["host_ms"][part], 0) << part;
    EXPECT_FALSE(json.contains("overhead_us"));
    EXPECT_EQ(json["device_us"].size(), 2u);
    for (const char* which : {"between", "whole"})
      for (const char* value : {"median", "q1", "q3", "p99"})
        EXPECT_GE(json["device_us"][which][value], 0) << which << value;
    EXPECT_GT(json["operations"].size(), json["groups"].size());
    for (const auto& op : json["operations"]) {
      for (const char* key : {"kind", "direction", "shape", "name", "unit", "calls_per_step", "seconds",
                              "flops_per_call", "gflop_per_s", "bytes_per_call", "share"})
        EXPECT_TRUE(op.contains(key)) << key;
      EXPECT_FALSE(op.contains("outside_pool_us_per_call"));
    }
  });
}

TEST_F(StepProfileCuda, SaysWhenTheDeviceHasNoTimes) {
  with_trainer(on_gpu(), 1, [](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    cuda::Queue& queue = *runtime.stream->queue();
    StepProfile profile = profile_of(plan, runtime, 1);
    profile.begin_training_step();
    cuda::begin_capture(queue);  // what is captured is not done, so nobody can wait for it
    profile.begin_program(0);
    profile.begin_step(0);
    profile.end_step(0);
    EXPECT_TRUE(
        testing::throws_error([&] { profile.end_training_step(1, trainer.last_step()); }, ErrorKind::kInternal,
                              {"step profile: times of the device must be readable; got ", "cudaEventSynchronize"}));
    try {
      const cuda::OwnedCapture captured(cuda::end_capture(queue));
    } catch (const Error&) {  // that question may have made it invalid
    }
  });
}

/// As the command does it, beside ranges and a trace.
TEST_F(StepProfileCuda, BenchStepTakesTheSameStepsWithIt) {
  const auto run = [&](bool with_profile, const std::string& trace) {
    StepSeries series;
    const config::Resolved config = resolved(on_gpu());
    RuntimeOptions options = runtime_options(config.config.parallel());
    options.threads = 1;
    EXPECT_EQ(run_ranks({}, options,
                        [&](Runtime& runtime) {
                          StepBench bench(config, runtime, {.who = "bench step", .file = trace, .steps = "1:4"}, 4);
                          bench.run(1);
                          StepProfile profile = profile_of(bench.plan(), runtime, 3);
                          series = bench.run(3, with_profile ? &profile : nullptr);
                          bench.run_trace().finish();
                          if (!with_profile) return;
                          EXPECT_EQ(profile.operations().size(), bench.plan().programs[0].steps.size());
                          EXPECT_GT(ms_of(profile, "optimizer"), 0) << "phases are seen, too";
                          bench.run(1);  // without it
                        }),
              0);
    return series;
  };
  const StepSeries plain = run(false, "");
  for (const std::string& trace : {std::string(), (folder_ / "trace.json").string()}) {
    const StepSeries profiled = run(true, trace);
    EXPECT_EQ(profiled.losses, plain.losses);
    EXPECT_EQ(profiled.flops, plain.flops);
    for (const double seconds : profiled.device_seconds) EXPECT_GT(seconds, 0);
  }
}

}  // namespace
}  // namespace permafrost
