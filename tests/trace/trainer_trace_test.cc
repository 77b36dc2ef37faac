// Trainers on CPU that are watched: what a trace has of them, and that they do the same.
#include <map>
#include <set>

#include "parallel/group/hierarchical_group.h"
#include "parallel/group/inproc_group.h"
#include "tests/trace/trace_fixture.h"

namespace permafrost {
namespace {

const Overrides kFrozen{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}",
                        "parallel.frozen_policy=SHARDED"};

Overrides with(Overrides all, const Overrides& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// Phases of each step in order.
std::vector<std::vector<std::string>> phases_by_step(const ReadTrace& trace, int pid = 0) {
  std::vector<std::vector<std::string>> steps;
  for (const ReadSpan& span : trace.lane("steps", pid)) {
    if (span.name == "step")
      steps.emplace_back();
    else
      steps.back().push_back(span.name);
  }
  return steps;
}

std::vector<std::string> phases_of(const Plan& plan) {
  std::vector<std::string> names;
  for (const PhaseKind phase : plan.phases) names.emplace_back(to_string(phase));
  return names;
}

TEST_F(TraceTest, HasEveryStepOfThePlanAndEveryPhase) {
  with_trainer({}, 2, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    train(options("1:3"), trainer, config, plan, runtime);
    const ReadTrace trace(file());
    trace.expect_nested();
    const size_t slots = static_cast<size_t>(plan.slots);
    ASSERT_EQ(slots, 2u);
    expect_programs(trace, plan, 2 * slots);
    ASSERT_EQ(phases_by_step(trace).size(), 2u);
    for (const auto& phases : phases_by_step(trace)) EXPECT_EQ(phases, phases_of(plan));
    EXPECT_EQ(trace.lane("steps")[0].args["step"], 1);
    EXPECT_EQ(count(trace.lane("data"), "wait for data"), 2 * slots);
    EXPECT_EQ(count(trace.lane("data"), "write inputs"), 2 * slots);
    EXPECT_FALSE(trace.has_lane("gathers")) << "nothing is gathered";
    EXPECT_EQ(trace.labels.at(0), "clock of rank 0's machine");
    EXPECT_EQ(trace.json["otherData"]["plan_hash"], plan.hash());
    EXPECT_EQ(trace.json["otherData"]["first_step"], 1);
    EXPECT_EQ(trace.json["otherData"]["end_step"], 3);
    double flops = 0;
    for (const ReadSpan& span : trace.lane("compute")) {
      if (span.category == "program") continue;
      for (const char* key : {"kind", "unit", "shape", "tokens", "bytes", "flops"})
        EXPECT_TRUE(span.args.contains(key)) << span.name << ' ' << key;
      EXPECT_GT(span.args["bytes"], 0) << span.name;
      flops += span.args["flops"].get<double>();
    }
    double planned = 0;
    for (const ReadSpan& span : trace.lane("compute"))
      if (span.category == "program") planned += plan.program_flops(plan.bucket_for(span.args["tokens"]));
    EXPECT_NEAR(flops, planned, 1e-9 * planned);  // the same f64 in another order
  });
}

TEST_F(TraceTest, SpansLieWhereTheyWere) {
  with_trainer({}, 1, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    train(options("1:2"), trainer, config, plan, runtime);
    const ReadTrace trace(file());
    const ReadSpan& step = trace.lane("steps")[0];
    const auto inside = [&](const ReadSpan& outer, const ReadSpan& span) {
      return outer.begin <= span.begin && span.end <= outer.end;
    };
    const ReadSpan& batches = trace.lane("steps")[1];
    EXPECT_EQ(batches.name, "micro_batches");
    for (const char* lane : {"compute", "data"})
      for (const ReadSpan& span : trace.lane(lane)) EXPECT_TRUE(inside(batches, span)) << span.name;
    int64_t covered = 0;
    for (const ReadSpan& span : trace.lane("steps"))
      if (span.name != "step") covered += span.end - span.begin;
    EXPECT_LE(covered, step.end - step.begin);
    // A loader prepares each sample of the micro-batches that were waited for, ahead of them or not.
    for (const ReadSpan& span : trace.lane("loader thread 0")) EXPECT_EQ(span.name, "prepare sample");
  });
}

TEST_F(TraceTest, SamplesAreOnTheThreadsOfTheLoader) {
  with_trainer({"data.decode_threads=2"}, 1,
               [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
                 train(options("0:4"), trainer, config, plan, runtime);
                 const ReadTrace trace(file());
                 std::map<int64_t, int> samples;  // by micro-batch
                 for (const char* lane : {"loader thread 0", "loader thread 1"})
                   for (const ReadSpan& span : trace.lane(lane)) ++samples[span.args["micro_batch"].get<int64_t>()];
                 // Of the last steps at least: the first ones were prepared before anybody looked.
                 EXPECT_EQ(samples[7], 4);
                 EXPECT_EQ(samples[6], 4);
               });
}

TEST_F(TraceTest, ChangesNoLossAndAllocatesNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "a sanitizer counts allocations itself";
  const Overrides eight{"train.max_steps=8"};
  std::vector<double> plain, traced;
  with_trainer(eight, 2, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    plain = train(no_trace(), trainer, config, plan, runtime);
  });
  with_trainer(eight, 2, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    on_every_thread(runtime.pool, [] { testing::register_counted_thread(); });
    bool counting = false;
    traced = train(options("2:8"), trainer, config, plan, runtime, [&](int64_t done) {
      if (std::exchange(counting, false)) {
        EXPECT_EQ(testing::end_counting_allocations().calls, 0) << done;
      }
      if (done >= 3 && done < 8) {
        counting = true;
        testing::begin_counting_allocations(testing::CountedThreads::kRegistered);
      }
    });
  });
  EXPECT_EQ(plain.size(), 8u);
  EXPECT_EQ(traced, plain);
}

TEST_F(TraceTest, GathersAreOnTheCommunicationThreadsLane) {
  for (const char* gather : {"PREFETCH", "INLINE"}) {
    with_trainer(
        with(kFrozen, {std::string("parallel.gather=") + gather}), 1,
        [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
          train(options("1:3"), trainer, config, plan, runtime);
          const ReadTrace trace(file());
          trace.expect_nested();
          const std::vector<ReadSpan>& gathers = trace.lane("gathers");
          std::vector<std::string> expected, waits;
          for (const ReadSpan& span : trace.lane("compute")) {
            if (span.category == "program")
              for (const Gather& each : plan.programs[plan.bucket_for(span.args["tokens"])].gathers)
                expected.push_back("gather " + plan.units[static_cast<size_t>(each.unit)].name);
            if (span.category == "gather") waits.push_back(span.name);
          }
          ASSERT_GT(expected.size(), 8u);
          EXPECT_EQ(names_of(gathers), expected) << gather;
          for (const ReadSpan& span : gathers) {
            const auto unit = std::ranges::find(plan.units, span.args["unit"].get<std::string>(), &UnitPlan::name);
            ASSERT_NE(unit, plan.units.end());
            EXPECT_EQ(span.args["bytes"], plan.frozen_units[static_cast<size_t>(unit - plan.units.begin())].bytes);
            EXPECT_EQ(span.args["how"], "copy");
          }
          // A wait for each unit, but for two that one step is the first to use.
          EXPECT_GT(waits.size(), expected.size() / 2);
          for (const std::string& wait : waits) EXPECT_TRUE(wait.starts_with("wait for ")) << wait;
          expect_programs(trace, plan, 4);
        });
  }
}

/// Each rank a node of its own: weights come from all of them, by a thread beside.
TEST_F(TraceTest, RanksShareAFileAndAClock) {
  const Overrides settings = with(kFrozen, {"train.global_batch=12"});  // three micro-batches: rank 1 idles once a step
  std::vector<double> alone, together;
  with_trainer(settings, 1, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    alone = train(no_trace(), trainer, config, plan, runtime);
  });
  run_inproc(2, [&](Group& flat) {
    World place{2, 2, 1, 0, {0, 1}};
    HierarchicalGroup world(flat, place.node_of_rank, {});
    ThreadPool pool(1);
    Runtime runtime{world, pool, place, world.node(), "", nullptr, 2};
    on_rank(
        settings, runtime, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
          const std::vector<double> losses = train(options("1:3"), trainer, config, plan, runtime);
          if (!runtime.first()) return;
          together = losses;
          const ReadTrace trace(file());
          trace.expect_nested();
          const TrafficPlan traffic[] = {plan.traffic_of(0), plan.traffic_of(1)};
          for (int rank = 0; rank < 2; ++rank) {
            expect_programs(trace, plan, rank == 0 ? 4 : 2, rank);
            for (const auto& phases : phases_by_step(trace, rank)) EXPECT_EQ(phases, phases_of(plan));
            EXPECT_EQ(trace.lane("gathers", rank).size(), trace.lane("gathers", 0).size()) << "idle ranks take part";
            for (const ReadSpan& span : trace.lane("gathers", rank)) EXPECT_EQ(span.args["how"], "collective");
            for (const ReadSpan& span : trace.lane("steps", rank)) {
              if (span.name == "reduce_gradients") {
                EXPECT_EQ(span.args["bytes"], traffic[rank].reduced_gradients);
              }
              if (span.name == "gather_working") {
                EXPECT_EQ(span.args["bytes"], traffic[rank].gathered_working);
              }
              if (span.name == "vote") {
                EXPECT_EQ(span.args["bytes"], traffic[rank].vote);
              }
            }
          }
          // Nobody leaves a vote before everybody has come: with one clock, spans of it overlap.
          for (size_t i = 0, seen = 0; i < trace.lane("steps", 0).size(); ++i) {
            const ReadSpan &a = trace.lane("steps", 0)[i], &b = trace.lane("steps", 1)[i];
            ASSERT_EQ(a.name, b.name);
            if (a.name != "vote") continue;
            EXPECT_LT(std::max(a.begin, b.begin), std::min(a.end, b.end)) << ++seen;
          }
        });
  });
  EXPECT_EQ(together, alone);
}

TEST_F(TraceTest, SaysWhenItsMemoryIsFull) {
  with_trainer({}, 1, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    TraceOptions small = options("0:4");
    small.most_spans = 50;
    ::testing::internal::CaptureStderr();
    const size_t losses = train(small, trainer, config, plan, runtime).size();
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(losses, 4u) << "training goes on";
    const std::string full = "memory full: what came later is missing; ask for fewer steps with --trace-steps";
    EXPECT_NE(said.find("trace: " + full + " [rank 0/1]"), std::string::npos) << said;
    EXPECT_EQ(said.find(full), said.rfind(full)) << "once";
    const ReadTrace trace(file());
    trace.expect_nested();
    EXPECT_EQ(trace.lane("compute").size(), 50u);
    EXPECT_EQ(trace.labels.at(0), full + "; clock of rank 0's machine");
  });
}

TEST_F(TraceTest, HasRoomForWhatItWasAskedFor) {
  // The first step runs twice, and is one of those asked for.
  with_trainer({}, 1, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    train(options("0:4"), trainer, config, plan, runtime);
    const ReadTrace trace(file());
    EXPECT_EQ(trace.labels.at(0), "clock of rank 0's machine");
    expect_programs(trace, plan, 5 * static_cast<size_t>(plan.slots));
    EXPECT_EQ(count(trace.lane("steps"), "vote"), 5u);
    EXPECT_EQ(count(trace.lane("steps"), "optimizer"), 4u);
  });
}

TEST_F(TraceTest, IsWrittenWhenItsStepsAreOver) {
  with_trainer({}, 1, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    train(options("0:2"), trainer, config, plan, runtime,
          [&](int64_t done) { EXPECT_EQ(std::filesystem::exists(file()), done > 2) << done; });
    const ReadTrace trace(file());
    EXPECT_EQ(phases_by_step(trace).size(), 2u);
    EXPECT_EQ(trace.labels.at(0), "clock of rank 0's machine") << "not full, either";
  });
}

TEST_F(TraceTest, KeepsWhatARankHasWhenItFails) {
  try {
    with_ranks(2, 1, {}, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
      train(options("1:4"), trainer, config, plan, runtime, [&](int64_t done) {
        if (done == 3 && runtime.rank() == 1) fail(ErrorKind::kData, "something went wrong");
      });
    });
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("something went wrong"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(std::filesystem::exists(file()));
  const ReadTrace failed(folder_ / "trace.rank1.json");
  failed.expect_nested();
  EXPECT_EQ(phases_by_step(failed, 1).size(), 2u);
  // The other one was ended by it, at whatever it did.
  const ReadTrace other(folder_ / "trace.rank0.json");
  other.expect_nested();
  EXPECT_GE(phases_by_step(other, 0).size(), 2u);
}

TEST_F(TraceTest, RefusesWhatCannotBe) {
  with_trainer({}, 1, [&](Trainer&, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
    const auto refuses = [&](const TraceOptions& options, int64_t first, ErrorKind kind, const std::string& message) {
      return testing::throws_error([&] { const RunTrace trace(options, config.config, plan, runtime, first, 4); }, kind,
                                   {message});
    };
    EXPECT_TRUE(refuses(options("4:9"), 0, ErrorKind::kConfig,
                        "train: --trace-steps must begin before step 4, where the run ends; got 4:9"));
    EXPECT_TRUE(refuses(options("0:2"), 2, ErrorKind::kConfig,
                        "train: --trace-steps must have a step of this run, which goes on from step 2; got 0:2"));
    TraceOptions of_folder = options();
    of_folder.file = folder_.path().string();
    EXPECT_TRUE(refuses(of_folder, 0, ErrorKind::kStorage, "is a folder"));
  });
  EXPECT_TRUE(testing::throws_error(
      [&] {
        with_ranks(2, 1, {}, [&](Trainer&, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
          const RunTrace trace(runtime.first() ? options() : no_trace(), config.config, plan, runtime, 0, 4);
        });
      },
      ErrorKind::kConfig, {"train: all ranks must agree; got --trace = a file on rank 0, none on rank 1"}));
}

thread_local std::vector<std::string> ranges, all_ranges;
std::atomic<int> unbalanced{0};
void push(const char* name) noexcept {
  ranges.emplace_back(name);
  all_ranges.emplace_back(name);
}
void pop() noexcept {
  if (ranges.empty())
    ++unbalanced;
  else
    ranges.pop_back();
}

TEST_F(TraceTest, RangesForToolsAreThoseOfThePlan) {
  with_trainer(
      with(kFrozen, {"parallel.gather=INLINE"}), 1,
      [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime&) {
        NvtxRanges marks(plan, {push, pop});
        EXPECT_FALSE(marks.needs_steps());
        trainer.observe(&marks);
        trainer.observe(&marks, nullptr);
        trainer.train_step(false);
        EXPECT_TRUE(ranges.empty());
        EXPECT_EQ(unbalanced, 0);
        for (const PlanStep& step : plan.programs.back().steps) {
          if (step.kind != StepKind::kForward) continue;
          EXPECT_NE(std::ranges::find(all_ranges, known_as(plan.graphs.back(), step)), all_ranges.end());
        }
        for (const char* name : {"step", "micro_batches", "wait for data", "write inputs", "program", "vote",
                                 "reduce_gradients", "gather_norms", "optimizer", "gather_working"})
          EXPECT_NE(std::ranges::find(all_ranges, name), all_ranges.end()) << name;
        EXPECT_EQ(all_ranges.front(), "step");
        EXPECT_TRUE(std::ranges::any_of(all_ranges, [](const auto& r) { return r.starts_with("gather text"); }));
        // A program that is left in the middle.
        marks.begin_phase(TrainerPhase::kProgram, 0);
        marks.begin_program(0);
        const size_t open = ranges.size();
        marks.begin_gather(0);
        marks.end_gather(0);
        EXPECT_EQ(ranges.size(), open) << "what follows may be a graph, which is no range";
        marks.begin_step(0);
        marks.end_phase(TrainerPhase::kProgram);
        EXPECT_TRUE(ranges.empty());
        trainer.observe(nullptr);
        trainer.observe(nullptr, nullptr);
      });
}

TEST(TrainerPhase, IsCalledAsInThePlan) {
  for (size_t i = 0; i < kPhaseKinds; ++i)
    EXPECT_EQ(to_string(phase_of(static_cast<PhaseKind>(i))), to_string(static_cast<PhaseKind>(i)));
  std::set<std::string> names;
  for (size_t i = 0; i < kTrainerPhases; ++i) names.insert(to_string(static_cast<TrainerPhase>(i)));
  EXPECT_EQ(names.size(), kTrainerPhases);
  EXPECT_FALSE(names.contains("?"));
}

}  // namespace
}  // namespace permafrost
