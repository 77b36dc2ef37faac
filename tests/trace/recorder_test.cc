#include "launch/trace/recorder.h"

#include <thread>

#include "launch/trace/observers.h"
#include "launch/trace/trace_file.h"
#include "launch/trace/trace_steps.h"
#include "parallel/group/inproc_group.h"
#include "tests/support/compare.h"
#include "tests/trace/trace_reader.h"

namespace permafrost {
namespace {

struct Recorded {
  TraceSwitch recording;
  Trace trace;
  uint32_t outer = trace.name({"outer", "phase", {{"bytes", 3}}, "step"}),
           inner = trace.name({"a \"quoted\" name", "forward", nullptr, ""});
  explicit Recorded(bool on = true) { recording.on = on; }
  void write(const std::filesystem::path& path, int64_t origin = 0) const {
    write_own_trace_file(path.string(), trace, {0, 1, origin, "rank 0", {}}, {{"plan_hash", "h"}});
  }
};

TEST(TraceLane, SpansNestAndCarryNumbers) {
  Recorded r;
  TraceLane& lane = r.trace.lane("steps", 1, 10, r.recording);
  const int64_t origin = trace_clock();
  lane.begin(r.outer, 7);
  lane.begin(r.inner);
  lane.end();
  lane.end();
  lane.end();  // none is open
  lane.add(r.outer, origin + 1'000'000'123'456, origin + 1'000'000'123'457, 8);
  const ScratchFolder folder;
  r.write(folder / "t.json", origin);
  const ReadTrace read(folder / "t.json");
  read.expect_nested();
  const auto& spans = read.lane("steps");
  EXPECT_EQ(names_of(spans), (std::vector<std::string>{"outer", "a \"quoted\" name", "outer"}));
  EXPECT_EQ(spans[0].args, (Json{{"bytes", 3}, {"step", 7}}));
  EXPECT_EQ(spans[1].args, Json::object());
  EXPECT_GE(spans[1].begin, spans[0].begin);
  EXPECT_LE(spans[1].end, spans[0].end);
  EXPECT_EQ(spans[2].begin, 1'000'000'123'456) << "no digit is lost";
  EXPECT_EQ(spans[2].end - spans[2].begin, 1);
  EXPECT_EQ(read.json["otherData"]["plan_hash"], "h");
}

TEST(TraceLane, RecordsOnlyWhatBeginsWhileItShould) {
  Recorded r(false);
  TraceLane& lane = r.trace.lane("steps", 1, 10, r.recording);
  lane.begin(r.outer);
  r.recording.on = true;
  lane.begin(r.inner);
  r.recording.on = false;
  lane.end();  // of a span that was begun in time
  lane.end();
  ASSERT_EQ(lane.spans(), 1u);
  EXPECT_EQ(lane.span(0).name, r.inner);
  EXPECT_NE(lane.span(0).end.load(), TraceSpan::kOpen);
}

TEST(TraceLane, AFullOneEndsTheRecordingOfAll) {
  Recorded r;
  TraceLane &lane = r.trace.lane("steps", 1, 2, r.recording), &other = r.trace.lane("data", 3, 10, r.recording);
  other.begin(r.outer);
  EXPECT_FALSE(r.trace.full());
  for (int i = 0; i < 3; ++i) {
    lane.begin(r.outer, i);
    lane.end();
  }
  EXPECT_TRUE(r.trace.full());
  EXPECT_EQ(lane.spans(), 2u);
  EXPECT_EQ(lane.span(1).number, 1);
  other.begin(r.inner);
  other.end();
  EXPECT_EQ(other.spans(), 1u) << "a trace of which a lane is missing would mislead";
  other.end();
  EXPECT_NE(other.span(0).end.load(), TraceSpan::kOpen) << "what has begun still ends";
}

TEST(TraceLane, OpenSpansEndWithTheFileAndSaySo) {
  Recorded r;
  TraceLane& lane = r.trace.lane("gathers", 4, 10, r.recording);
  lane.begin(r.outer, 1);
  const ScratchFolder folder;
  r.write(folder / "t.json");
  const ReadTrace read(folder / "t.json");
  const auto& spans = read.lane("gathers");
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].args["unfinished"], true);
  EXPECT_GE(spans[0].end, spans[0].begin);
  for (int i = 0; i < 20; ++i) lane.begin(r.inner);  // deeper than it keeps
  lane.end_all();
  for (size_t i = 0; i < lane.spans(); ++i) EXPECT_NE(lane.span(i).end.load(), TraceSpan::kOpen) << i;
}

TEST(TraceLane, CanBeReadWhileItIsWritten) {
  Recorded r;
  TraceLane& lane = r.trace.lane("loader thread 0", 10, 20000, r.recording);
  std::thread writer([&] {
    for (int i = 0; i < 20000; ++i) {
      lane.begin(r.outer, i);
      lane.end();
    }
  });
  size_t seen = 0;
  while (seen < 20000) {
    seen = lane.spans();
    if (seen == 0) continue;
    ASSERT_EQ(lane.span(seen - 1).number, static_cast<int64_t>(seen) - 1);
    ASSERT_GT(lane.span(seen - 1).begin, 0);
  }
  writer.join();
}

TEST(TraceFile, HasAllRanksInPieces) {
  const ScratchFolder folder;
  const std::string path = (folder / "t.json").string();
  constexpr int kSpans = 12000;  // several pieces a rank
  run_inproc(3, [&](Group& world) {
    Recorded r;
    TraceLane& lane = r.trace.lane("steps", 1, kSpans, r.recording);
    for (int i = 0; i < kSpans; ++i) lane.add(r.outer, i, i + 1, 10 * i + world.rank());
    write_trace_file(path, r.trace, {world.rank(), 3, 0, concat("rank ", world.rank()), {"one", "two"}}, {{"ranks", 3}},
                     world);
  });
  const ReadTrace read(path);
  for (int rank = 0; rank < 3; ++rank) {
    const auto& spans = read.lane("steps", rank);
    ASSERT_EQ(spans.size(), static_cast<size_t>(kSpans));
    for (int i = 0; i < kSpans; ++i) ASSERT_EQ(spans[static_cast<size_t>(i)].args["step"], 10 * i + rank);
    EXPECT_EQ(read.labels.at(rank), "one; two");
  }
}

TEST(TraceFile, ThatCannotBeWrittenKeepsNoRankWaiting) {
  std::atomic<int> refused{0};
  run_inproc(2, [&](Group& world) {
    Recorded r;
    r.trace.lane("steps", 1, 1, r.recording).begin(r.outer);
    try {
      write_trace_file("/proc/none/t.json", r.trace, {world.rank(), 2, 0, "", {}}, {}, world);
      EXPECT_EQ(world.rank(), 1);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kStorage);
      ++refused;
    }
    world.barrier(StreamView::caller(), "both go on").wait();
  });
  EXPECT_EQ(refused, 1);
}

TEST(TraceFile, NamesAndChecksPaths) {
  EXPECT_EQ(own_trace_path("runs/trace.json", 3, 4), "runs/trace.rank3.json");
  EXPECT_EQ(own_trace_path("trace", 0, 2), "trace.rank0");
  EXPECT_EQ(own_trace_path("runs/trace.json", 0, 1), "runs/trace.json");
  const ScratchFolder folder;
  write_file(folder / "old.json", "what was there");
  require_writable_trace("train", (folder / "old.json").string());
  EXPECT_EQ(read_file(folder / "old.json"), "what was there");
  EXPECT_TRUE(testing::throws_error([&] { require_writable_trace("train", folder.path().string()); },
                                    ErrorKind::kStorage,
                                    {"train: --trace must name a file that can be written; got ", ": is a folder"}));
  EXPECT_TRUE(testing::throws_error([&] { require_writable_trace("train", (folder / "no/t.json").string()); },
                                    ErrorKind::kStorage, {"got ", "no/t.json: cannot create "}));
}

TEST(TraceSteps, AreReadAsTheyAreSaid) {
  EXPECT_EQ(parse_trace_steps("train", "0:1"), (TraceSteps{0, 1}));
  EXPECT_EQ(parse_trace_steps("train", "12:345"), (TraceSteps{12, 345}));
  for (const char* bad :
       {"", "3", "3:", ":3", "3:3", "4:3", "-1:3", "1:2:3", "1:2 ", "a:b", "1-2", "1:99999999999999999999"})
    EXPECT_TRUE(testing::throws_error([&] { parse_trace_steps("train", bad); }, ErrorKind::kConfig,
                                      {"train: --trace-steps must be A:B with 0 <= A < B", concat("got '", bad, "'")}));
}

TEST(TraceSteps, AreTenBehindTheFirstTwoOrTheLast) {
  EXPECT_EQ(usual_trace_steps(0, 1000), (TraceSteps{2, 12}));
  EXPECT_EQ(usual_trace_steps(500, 1000), (TraceSteps{502, 512}));
  EXPECT_EQ(usual_trace_steps(0, 11), (TraceSteps{1, 11}));
  EXPECT_EQ(usual_trace_steps(0, 4).begin, 0);
  EXPECT_EQ(usual_trace_steps(995, 1000).begin, 995);
}

/// Notes what it is told, with its name.
struct Noted final : ExecutorObserver, PhaseObserver {
  Noted(std::string name, std::vector<std::string>& notes, bool steps)
      : name(std::move(name)), notes(notes), steps(steps) {}
  void begin_program(size_t) override { notes.push_back(name + " program"); }
  void begin_gather(size_t) override { notes.push_back(name + " gather"); }
  void end_gather(size_t) override { notes.push_back(name + " gather ends"); }
  void begin_step(size_t) override { notes.push_back(name + " step"); }
  void end_step(size_t) override { notes.push_back(name + " step ends"); }
  void begin_fill(size_t) override { notes.push_back(name + " fill"); }
  void end_fill(size_t) override { notes.push_back(name + " fill ends"); }
  void begin_phase(TrainerPhase, int64_t) override { notes.push_back(name + " phase"); }
  void end_phase(TrainerPhase) override { notes.push_back(name + " phase ends"); }
  bool needs_steps() const override { return steps; }
  std::string name;
  std::vector<std::string>& notes;
  bool steps;
};

TEST(Observers, TellAllOneWithinTheOther) {
  std::vector<std::string> notes;
  Noted a("a", notes, false), b("b", notes, true);
  Observers both;
  EXPECT_FALSE(both.sees_programs());
  both.add(static_cast<ExecutorObserver*>(&a));
  both.add(static_cast<PhaseObserver*>(&a));
  EXPECT_FALSE(both.needs_steps());
  both.add(static_cast<ExecutorObserver*>(&b));
  both.add(static_cast<PhaseObserver*>(&b));
  EXPECT_TRUE(both.needs_steps());
  {
    PhaseScope scope(&both, TrainerPhase::kVote, 1);
    scope.end();  // and not once more
  }
  both.begin_program(0);
  both.begin_gather(0);
  both.end_gather(0);
  both.begin_step(0);
  both.end_step(0);
  both.begin_fill(0);
  both.end_fill(0);
  EXPECT_EQ(notes,
            (std::vector<std::string>{"a phase", "b phase", "b phase ends", "a phase ends", "a program", "b program",
                                      "a gather", "b gather", "b gather ends", "a gather ends", "a step", "b step",
                                      "b step ends", "a step ends", "a fill", "b fill", "b fill ends", "a fill ends"}));
  notes.clear();
  both.remove(static_cast<ExecutorObserver*>(&b));
  both.begin_program(0);
  both.begin_phase(TrainerPhase::kVote, 1);
  both.remove(static_cast<PhaseObserver*>(&b));
  both.begin_phase(TrainerPhase::kVote, 1);
  EXPECT_EQ(notes, (std::vector<std::string>{"a program", "a phase", "b phase", "a phase"}));
}

}  // namespace
}  // namespace permafrost
