// `permafrost bench step` on one rank.
#include "tests/launch/bench_step_fixture.h"

namespace permafrost {
namespace {

TEST_F(BenchStep, TakesTheStepsOfTrain) { expect_same_steps_as_train("", "", 1); }
TEST_F(BenchStep, TakesTheStepsOfTrainInBf16) { expect_same_steps_as_train("--set precision.compute=AUTO", "", 1); }
TEST_F(BenchStep, ServesCommands) { expect_serves_commands("", 1); }

TEST_F(BenchStep, TheEndOfInputEndsIt) {
  EXPECT_TRUE(ends(bench("--control"), 0, {"\"benchmark\":\"step\""}));  // from /dev/null
  const Outcome given = bench("--control", with_input("run 1"));         // without a line end
  ASSERT_EQ(given.code, 0) << given.output;
  EXPECT_EQ(json_lines(given).size(), 2u);
}

TEST_F(BenchStep, ProfilesOperations) {
  ASSERT_TRUE(ends(bench("--warmup 1 --steps 2 --profile --json " + json_path().string()), 0,
                   {"operations of rank 0, by kind and shape", "linear forward", "linear backward", "sum_gradient",
                    "parts of a step", "filling inputs", "waiting for data", "optimizer", "reduce_gradients",
                    "executor overhead (us per operation)", "between operations", "outside the thread pool"}));
  const Json profile = figures()["profile"];
  for (const char* which : {"between", "within", "both", "whole"})
    for (const char* value : {"median", "q1", "q3", "p99"})
      EXPECT_GT(profile["overhead_us"][which][value].get<double>(), 0) << which << value;
  EXPECT_EQ(profile["clock"], "host");
  for (const char* key : {"graphs", "device_ms", "device_us", "host_ms"}) EXPECT_FALSE(profile.contains(key)) << key;
  EXPECT_GT(profile["operations"].size(), profile["groups"].size());
  for (const auto& op : profile["operations"])
    for (const char* key : {"kind", "direction", "shape", "name", "unit", "calls_per_step", "seconds", "flops_per_call",
                            "gflop_per_s", "bytes_per_call", "share", "outside_pool_us_per_call"})
      EXPECT_TRUE(op.contains(key)) << key;
}

/// The program never has the emulation: where there is no GPU it says so, of the device and not of the profile.
TEST_F(BenchStep, ProfilesOperationsOfAGpu) {
  const auto gpus = parse_json(run("info --json").output)["gpus"];
  const Outcome given =
      bench("--set parallel.device=CUDA --warmup 1 --steps 2 --profile --json " + json_path().string());
  if (!gpus["missing"].is_null()) {
    EXPECT_NE(given.code, 0);
    EXPECT_NE(given.output.find(gpus["missing"].get<std::string>()), std::string::npos) << given.output;
    return;
  }
  ASSERT_TRUE(ends(given, 0, {"operations of rank 0 on the device", "linear forward", "the host meanwhile"}));
  EXPECT_EQ(figures()["profile"]["clock"], "device");
}

TEST_F(BenchStep, LeavesNothingBehind) {
  const std::filesystem::path temporary = folder_ / "temporary";
  std::filesystem::create_directories(temporary);
  ASSERT_TRUE(ends(bench("--warmup 0 --steps 1", "TMPDIR=" + temporary.string()), 0, {"checkpoint "}));
  EXPECT_TRUE(std::filesystem::is_empty(temporary));
  EXPECT_FALSE(std::filesystem::exists(dir()));
}

TEST_F(BenchStep, SaysWhatIsWrong) {
  EXPECT_TRUE(ends(bench("--warmup 2 --steps 3"), 2,
                   {"bench step: --warmup and --steps together must be at most train.max_steps = 4; got 5"}));
  EXPECT_TRUE(ends(bench("--steps 0"), 2, {"--steps: Value 0 not in range 1 to 1000000"}));
  EXPECT_TRUE(ends(bench("--control --steps 2"), 2, {"--steps excludes --control"}));
  EXPECT_TRUE(ends(bench("--control --profile"), 2, {"--profile excludes --control"}));
  EXPECT_TRUE(ends(bench("--warmup 0 --steps 1 --json /proc/none/step.json"), 4, {"/proc/none/step.json"}));
  EXPECT_TRUE(ends(run("bench step"), 2, {"config is required"}));
  EXPECT_TRUE(ends(run("bench step " + config()), 2, {"data.root"}));
}

TEST_F(BenchStep, HelpNamesEveryOption) {
  EXPECT_TRUE(ends(run("bench step --help"), 0,
                   {"--set", "--warmup", "=3", "--steps", "=20", "--json", "--profile", "on a GPU by its own clock",
                    "--control", "run N"}));
}

}  // namespace
}  // namespace permafrost
