// `permafrost bench step` on two ranks, through launch/mpirun.sh.
#include "tests/launch/bench_step_fixture.h"

namespace permafrost {
namespace {

TEST_F(BenchStep, TakesTheStepsOfTrain) { expect_same_steps_as_train("", on_ranks(2), 2); }

/// Frozen weights in two halves, on two nodes.
const char* const kGathered =
    " --set 'freeze[0].pattern=connector*' --set 'freeze+={pattern: \"*\" trainable: false}' --set "
    "parallel.frozen_policy=SHARDED --set parallel.ranks_per_node=1 ";

TEST_F(BenchStep, TakesTheStepsOfTrainWithGatheredWeights) { expect_same_steps_as_train(kGathered, on_ranks(2), 2); }

TEST_F(BenchStep, ServesCommands) { expect_serves_commands(on_ranks(2), 2); }

/// Ranks wait for each other one second at most, and for commands as long as it takes.
TEST_F(BenchStep, CommandsMayTakeLongerThanRanksWaitForEachOther) {
  for (const char* nodes : {"", " --set parallel.ranks_per_node=1"}) {
    const Outcome given =
        bench(concat("--control --set parallel.timeout_s=1", nodes),
              "bash -c '(printf \"run 1\\n\"; sleep 3; printf \"run 1\\n\") | \"$@\"' -- " + on_ranks(2));
    ASSERT_EQ(given.code, 0) << given.output;
    EXPECT_EQ(json_lines(given).size(), 3u) << given.output;
  }
}

TEST_F(BenchStep, ProfilesWaitingForWeightsOfOtherRanks) {
  ASSERT_TRUE(
      ends(bench(kGathered + concat("--warmup 1 --steps 2 --profile --json ", json_path().string()), on_ranks(2)), 0,
           {"operations of rank 0", "executor overhead", "waiting for sharded weights"}));
  const Json parts = figures()["profile"]["parts_ms"];
  EXPECT_GT(parts["waiting for sharded weights"].get<double>(), 0);
  EXPECT_GT(parts["gather_working"].get<double>(), 0);
}

}  // namespace
}  // namespace permafrost
