// --trace as users give it.
#include "tests/launch/training_fixture.h"
#include "tests/trace/trace_reader.h"

namespace permafrost {
namespace {

class TraceProgram : public Training {
 protected:
  std::filesystem::path file() const { return folder_ / "trace.json"; }
  std::string traced(const std::string& steps = "") const {
    return " --trace " + file().string() + (steps.empty() ? "" : " --trace-steps " + steps);
  }
  static size_t steps_in(const ReadTrace& trace, int pid = 0) {
    return static_cast<size_t>(std::ranges::count(trace.lane("steps", pid), "step", &ReadSpan::name));
  }
};

TEST_F(TraceProgram, TrainsTheSame) {
  ASSERT_TRUE(ends(train("", "plain"), 0, {}));
  ASSERT_TRUE(ends(train(traced(), "traced"), 0,
                   {"trace of steps 0:4 written to " + file().string() + ", to be opened with https://ui.perfetto.dev",
                    "summary of"}));
  EXPECT_EQ(losses("traced"), losses("plain"));
  EXPECT_EQ(adapter_hash("traced"), adapter_hash("plain"));
  const ReadTrace trace(file());
  trace.expect_nested();
  EXPECT_EQ(steps_in(trace), 4u);
  EXPECT_EQ(std::ranges::count(trace.lane("steps"), "checkpoint", &ReadSpan::name), 1);
  EXPECT_EQ(std::ranges::count(trace.lane("steps"), "check of frozen weights", &ReadSpan::name), 1);
}

TEST_F(TraceProgram, LeavesTheProgramsOfValidationsOut) {
  ASSERT_TRUE(ends(train(traced("1:3") + " --set validation.every_steps=1 --set validation.samples=8"), 0,
                   {"trace of steps 1:3 written"}));
  const ReadTrace trace(file());
  EXPECT_EQ(std::ranges::count(trace.lane("steps"), "validation", &ReadSpan::name), 2);
  // Two steps of two micro-batches.
  EXPECT_EQ(std::ranges::count(trace.lane("compute"), "program", &ReadSpan::category), 4);
}

TEST_F(TraceProgram, GoesOnWithAResumedRun) {
  ASSERT_TRUE(ends(train("--set train.max_steps=2"), 0, {}));
  EXPECT_TRUE(ends(train("--resume" + traced("0:2")), 2,
                   {"train: --trace-steps must have a step of this run, which goes on from step 2; got 0:2"}));
  ASSERT_TRUE(ends(train("--resume" + traced()), 0, {"trace of steps 2:4 written"}));
  EXPECT_EQ(steps_in(ReadTrace(file())), 2u);
}

TEST_F(TraceProgram, IsKeptOfARunThatFails) {
  EXPECT_TRUE(ends(train("--set optimizer.lr=1e30 --set schedule.kind=CONSTANT --set schedule.warmup_steps=0 --set "
                         "optimizer.clip_norm=0" +
                         traced("0:4")),
                   5,
                   {"loss and gradients must be finite",
                    "trace: what this rank recorded before the failure is in " + file().string()}));
  const ReadTrace trace(file());
  trace.expect_nested();
  EXPECT_EQ(steps_in(trace), 2u);
}

TEST_F(TraceProgram, RefusesBeforeAnythingIsTrained) {
  const Outcome unwritable = train(" --trace /proc/none/trace.json");
  EXPECT_TRUE(ends(unwritable, 4,
                   {"train: --trace must name a file that can be written; got /proc/none/trace.json: cannot create"}));
  EXPECT_EQ(unwritable.output.find("step 1/4"), std::string::npos) << unwritable.output;
  EXPECT_FALSE(std::filesystem::exists(dir() / "metrics.jsonl"));
  EXPECT_TRUE(ends(train(traced("3")), 2,
                   {"train: --trace-steps must be A:B with 0 <= A < B (from step A up to and without B); got '3'"}));
  EXPECT_TRUE(
      ends(train(traced("4:5")), 2, {"train: --trace-steps must begin before step 4, where the run ends; got 4:5"}));
  EXPECT_TRUE(ends(train(" --trace-steps 0:1"), 2, {"--trace-steps requires --trace"}));
}

TEST_F(TraceProgram, AFullDiskIsAWarning) {
  // The trace comes before the checkpoint, which has no room either.
  const Outcome given = train(traced("0:2") + " --set train.max_steps=3", "run", on_a_full_disk());
  EXPECT_NE(given.output.find("trace: not written: cannot write " + file().string()), std::string::npos)
      << given.output;
  EXPECT_NE(given.output.find("step 3/3"), std::string::npos) << "training goes on: " << given.output;
  EXPECT_FALSE(std::filesystem::exists(file()));
}

TEST_F(TraceProgram, OfTimedStepsBesideAProfile) {
  ASSERT_TRUE(ends(run("bench step " + settings() + "--warmup 1 --steps 3 --profile" + traced()), 0,
                   {"operations of rank 0, by kind and shape", "trace of steps 1:4 written to " + file().string()}));
  const ReadTrace trace(file());
  trace.expect_nested();
  EXPECT_EQ(steps_in(trace), 3u);
  EXPECT_TRUE(ends(run("bench step " + settings() + "--warmup 1 --steps 2" + traced("3:4")), 2,
                   {"bench step: --trace-steps must begin before step 3, where the run ends; got 3:4"}));
  EXPECT_TRUE(ends(run("bench step " + settings() + "--control" + traced()), 2, {"--trace excludes --control"}));
}

TEST_F(TraceProgram, HelpNamesTheOptions) {
  EXPECT_TRUE(ends(run("train --help"), 0, {"--trace FILE", "--trace-steps A:B", "Needs: --trace", "Perfetto"}));
  EXPECT_TRUE(ends(run("bench step --help"), 0, {"--trace FILE", "the first ten that are timed"}));
}

}  // namespace
}  // namespace permafrost
