// --trace on ranks that are processes.
#include "tests/launch/training_fixture.h"
#include "tests/trace/trace_reader.h"

namespace permafrost {
namespace {

class TraceMpi : public Training {
 protected:
  std::filesystem::path file() const { return folder_ / "trace.json"; }
  std::string traced(const std::string& steps) const {
    return " --trace " + file().string() + " --trace-steps " + steps;
  }
};

TEST_F(TraceMpi, OneFileOfBothRanks) {
  const std::string weights =
      " --set 'freeze[0].pattern=connector*' --set 'freeze+={pattern: \"*\" trainable: false}' --set "
      "parallel.frozen_policy=SHARDED --set parallel.ranks_per_node=1";
  ASSERT_TRUE(ends(train(weights, "plain", on_ranks(2)), 0, {}));
  ASSERT_TRUE(ends(train(weights + traced("1:3"), "traced", on_ranks(2)), 0, {"trace of steps 1:3 written to"}));
  EXPECT_EQ(losses("traced"), losses("plain"));
  const ReadTrace trace(file());
  trace.expect_nested();
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(std::ranges::count(trace.lane("steps", rank), "step", &ReadSpan::name), 2);
    EXPECT_GT(trace.lane("gathers", rank).size(), 0u);
    EXPECT_EQ(trace.labels.at(rank), "clock of rank 0's machine");
  }
  const auto &first = trace.lane("steps", 0), &second = trace.lane("steps", 1);
  ASSERT_EQ(names_of(first), names_of(second));
  for (size_t i = 0; i < first.size(); ++i) {
    if (first[i].name != "vote") continue;
    EXPECT_LT(std::max(first[i].begin, second[i].begin), std::min(first[i].end, second[i].end)) << "one clock";
  }
}

TEST_F(TraceMpi, EachRankKeepsItsOwnWhenOneFails) {
  EXPECT_TRUE(ends(train("--set optimizer.lr=1e30 --set schedule.kind=CONSTANT --set schedule.warmup_steps=0 --set "
                         "optimizer.clip_norm=0" +
                             traced("0:4"),
                         "run", on_ranks(2)),
                   5,
                   {"loss and gradients must be finite", "trace: what this rank recorded before the failure is in "}));
  EXPECT_FALSE(std::filesystem::exists(file()));
  for (int rank = 0; rank < 2; ++rank) {
    const ReadTrace trace(folder_ / ("trace.rank" + std::to_string(rank) + ".json"));
    trace.expect_nested();
    EXPECT_EQ(std::ranges::count(trace.lane("steps", rank), "step", &ReadSpan::name), 2);
  }
}

}  // namespace
}  // namespace permafrost
