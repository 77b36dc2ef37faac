#pragma once
#include <memory>
#include <mutex>

#include "launch/trace/run_trace.h"
#include "tests/launch/trainer_fixture.h"
#include "tests/trace/trace_reader.h"

namespace permafrost {

/// A value, or the state it writes, that an operation is known by.
inline std::string known_as(const Graph& graph, const PlanStep& step) {
  const auto made_by = [&](int op) {
    const OpInfo& info = graph.ops()[static_cast<size_t>(op)];
    return graph.values()[static_cast<size_t>(info.outputs.empty() ? info.state : info.outputs[0])].name;
  };
  return step.before < 0 ? made_by(step.op) : made_by(step.before) + " + " + made_by(step.op);
}

/// Trainers in process that are watched.
class TraceTest : public TrainerTest {
 protected:
  std::filesystem::path file() const { return folder_ / "trace.json"; }
  TraceOptions options(const std::string& steps = "") const {
    return {.who = "train", .file = file().string(), .steps = steps};
  }

  static TraceOptions no_trace() {
    TraceOptions none;
    none.who = "train";
    return none;
  }

  /// All steps of a run; losses of this rank. after(steps done): behind each.
  std::vector<double> train(const TraceOptions& options, Trainer& trainer, const config::Resolved& config,
                            const Plan& plan, Runtime& runtime, const std::function<void(int64_t)>& after = {}) {
    std::vector<double> losses;
    const int64_t steps = config.config.train().max_steps();
    losses.reserve(static_cast<size_t>(steps));
    RunTrace& trace = keep(std::make_unique<RunTrace>(options, config.config, plan, runtime, 0, steps));
    trace.attach(trainer);
    trace.keep_when_failing([&] {
      while (trainer.step() < steps) {
        trace.before_step(trainer.step());
        losses.push_back(trainer.train_step(false).loss);
        if (after) after(trainer.step());
      }
      trace.finish();
    });
    return losses;
  }
  /// Until the end of the test: the trainers of these tests are made before what watches them.
  RunTrace& keep(std::unique_ptr<RunTrace> trace) {
    const std::lock_guard lock(mutex_);
    traces_.push_back(std::move(trace));
    return *traces_.back();
  }

  /// Every step of the plan is there by name in each program that ran, in its order.
  static void expect_programs(const ReadTrace& trace, const Plan& plan, size_t programs, int pid = 0) {
    std::vector<std::vector<std::string>> ran, forward;
    std::vector<int64_t> tokens;
    for (const ReadSpan& span : trace.lane("compute", pid)) {
      if (span.category == "program") {
        ran.emplace_back();
        forward.emplace_back();
        tokens.push_back(span.args["tokens"]);
      } else if (span.category != "gather") {
        ASSERT_FALSE(ran.empty());
        ran.back().push_back(span.name);
        if (span.args.value("direction", "") == "forward") forward.back().push_back(span.name);
      }
    }
    EXPECT_EQ(ran.size(), programs);
    for (size_t i = 0; i < ran.size(); ++i) {
      const size_t bucket = plan.bucket_for(tokens[i]);
      std::vector<std::string> expected;
      for (const PlanStep& step : plan.programs[bucket].steps)
        if (step.kind == StepKind::kForward) expected.push_back(known_as(plan.graphs[bucket], step));
      EXPECT_EQ(forward[i], expected) << i;
      EXPECT_EQ(ran[i].size(), plan.programs[bucket].steps.size()) << i;
      std::ranges::sort(expected);
      EXPECT_EQ(std::ranges::adjacent_find(expected), expected.end()) << "each name once";
    }
  }

  static size_t count(const std::vector<ReadSpan>& spans, const std::string& name) {
    return static_cast<size_t>(std::ranges::count(spans, name, &ReadSpan::name));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<RunTrace>> traces_;
};

}  // namespace permafrost
