// The checker must notice every kind of damage; a checker that cannot fail proves nothing.
#include "parallel/plan/check.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/graph/freezing.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

struct Case {
  Graph graph = testing::toy_transformer({});
  NeedAnalysis needs = analyse_needs(graph, resolve_freezing(graph, {{"*", true}}));
  Program program;
  Case() {
    std::vector<ParamPlacement> placements;
    for (const ParamInfo& p : graph.params()) placements.push_back({Region::kFrozen, 0, {p.shape, DType::kF32}});
    program = build_program(graph, needs, placements, {});
  }
  std::vector<std::string> check() const { return check_program(graph, needs, program, {}); }
};

bool complains(const std::vector<std::string>& problems, const std::string& about) {
  return std::ranges::any_of(problems, [&](const std::string& p) { return p.find(about) != std::string::npos; });
}

/// Moves every reference to a buffer.
void move_buffer(Program& program, int buffer, int64_t offset) {
  for (PlanStep& step : program.steps) {
    for (auto* refs :
         {&step.inputs, &step.outputs, &step.saved, &step.doutputs, &step.dinputs, &step.dparams, &step.before_inputs})
      for (TensorRef& ref : *refs)
        if (ref.buffer == buffer) ref.offset = offset;
    if (step.workspace.buffer == buffer) step.workspace.offset = offset;
  }
  for (auto* refs : {&program.values, &program.value_gradients, &program.param_gradients})
    for (TensorRef& ref : *refs)
      if (ref.buffer == buffer) ref.offset = offset;
}

TEST(CheckProgram, AcceptsWhatThePlannerBuilds) { EXPECT_TRUE(Case().check().empty()); }

TEST(CheckProgram, FindsAnyTwoBuffersThatMeetInTimeAndSpace) {
  const Case sound;
  int tried = 0;
  for (size_t a = 0; a < sound.program.buffers.size(); ++a)
    for (size_t b = a + 1; b < sound.program.buffers.size(); b += 7) {
      const PlannedBuffer &x = sound.program.buffers[a], &y = sound.program.buffers[b];
      // Alive together for more than a moment, so that one of them is surely read after the other was written.
      if (!(x.first_step < y.first_step && y.first_step < x.last_step)) continue;
      if (x.kind == BufferKind::kWorkspace || y.kind == BufferKind::kWorkspace) continue;
      Case damaged;
      damaged.program.arena_bytes += 2 * x.bytes + 2 * y.bytes;
      move_buffer(damaged.program, static_cast<int>(b), x.offset);
      EXPECT_FALSE(damaged.check().empty()) << x.name << " and " << y.name;
      ++tried;
    }
  EXPECT_GT(tried, 50);
}

TEST(CheckProgram, FindsAMissingStep) {
  for (size_t s = 0; s < Case().program.steps.size(); ++s) {
    Case damaged;
    damaged.program.steps.erase(damaged.program.steps.begin() + static_cast<std::ptrdiff_t>(s));
    EXPECT_FALSE(damaged.check().empty()) << "step " << s;
  }
}

TEST(CheckProgram, FindsAddressesOutsideTheArena) {
  Case damaged;
  damaged.program.arena_bytes -= kArenaAlignment;
  const auto problems = damaged.check();
  ASSERT_FALSE(problems.empty());
  EXPECT_NE(problems[0].find("outside the arena"), std::string::npos) << problems[0];
}

TEST(CheckProgram, FindsAGradientOverwrittenInsteadOfAdded) {
  int found = 0;
  for (size_t s = 0; s < Case().program.steps.size(); ++s) {
    Case damaged;
    bool changed = false;
    for (GradMode& mode : damaged.program.steps[s].dinput_modes)
      if (mode == GradMode::kAdd) mode = GradMode::kOverwrite, changed = true;
    for (GradMode& mode : damaged.program.steps[s].dparam_modes)
      if (mode == GradMode::kAdd) mode = GradMode::kOverwrite, changed = true;
    if (!changed) continue;
    EXPECT_FALSE(damaged.check().empty()) << "step " << s;
    ++found;
  }
  EXPECT_GT(found, 3);
}

TEST(CheckProgram, FindsAWorkspaceOfTheWrongSize) {
  int tried = 0;
  for (size_t s = 0; s < Case().program.steps.size(); ++s) {
    if (Case().program.steps[s].workspace.region != Region::kArena) continue;
    Case small, missing;
    TensorSpec& spec = small.program.steps[s].workspace.spec;
    spec.shape = Shape{spec.bytes() - 1};
    EXPECT_TRUE(complains(small.check(), "the operation asks for")) << "step " << s;
    missing.program.steps[s].workspace = {};
    EXPECT_TRUE(complains(missing.check(), "has 0 bytes, the operation asks for")) << "step " << s;
    ++tried;
  }
  EXPECT_GT(tried, 5);
  // Planned for one thread, run by two.
  const Case sound;
  EXPECT_TRUE(complains(check_program(sound.graph, sound.needs, sound.program, {.workers = 2}), "the workspace of"));
}

TEST(CheckProgram, FindsSavedBuffersThatAreNotThoseOfTheOperation) {
  int tried = 0;
  for (size_t s = 0; s < Case().program.steps.size(); ++s) {
    if (Case().program.steps[s].saved.empty()) continue;
    Case other, fewer;
    TensorRef& ref = other.program.steps[s].saved.back();
    ref.spec.shape = Shape{ref.spec.shape.elements() - 1};
    EXPECT_TRUE(complains(other.check(), "the graph says")) << "step " << s;
    fewer.program.steps[s].saved.pop_back();
    EXPECT_TRUE(complains(fewer.check(), "saved buffers, the operation asks for")) << "step " << s;
    ++tried;
  }
  EXPECT_GT(tried, 10);
}

TEST(CheckProgram, FindsASumThatANormCannotMakeAlongTheWay) {
  const Case sound;
  int tried = 0;
  for (size_t s = 0; s < sound.program.steps.size(); ++s) {
    if (sound.program.steps[s].before < 0) continue;
    Case fewer, lost, other, elsewhere;
    fewer.program.steps[s].before_inputs.pop_back();
    EXPECT_TRUE(complains(fewer.check(), "lacks operands")) << "step " << s;
    lost.program.steps[s].before = -1;
    lost.program.steps[s].before_inputs.clear();
    EXPECT_TRUE(complains(lost.check(), "is read before it was written")) << "step " << s;
    --other.program.steps[s].before;  // the product whose result is added
    other.program.steps[s].before_inputs.resize(1);
    EXPECT_TRUE(complains(other.check(), "cannot take along linear")) << "step " << s;
    TensorRef& sum = elsewhere.program.steps[s].inputs[0];
    sum.offset = elsewhere.program.steps[s].before_inputs[1].offset;  // over what is added: allowed for the first alone
    EXPECT_TRUE(complains(elsewhere.check(), "overlaps an operand")) << "step " << s;
    ++tried;
  }
  EXPECT_EQ(tried, 6);
}

TEST(CheckProgram, FindsAGradientSummedTwiceOrNever) {
  Case twice;
  const auto sums = std::ranges::find(twice.program.steps, StepKind::kSumGradient, &PlanStep::kind);
  ASSERT_NE(sums, twice.program.steps.end());
  const PlanStep sum = *sums;
  twice.program.steps.insert(sums, sum);
  EXPECT_TRUE(complains(twice.check(), "was summed 2 times, not 1"));
  Case never;
  std::erase_if(never.program.steps, [](const PlanStep& step) { return step.kind == StepKind::kSumGradient; });
  EXPECT_TRUE(complains(never.check(), "was summed 0 times, not 1"));
}

TEST(CheckProgram, FindsValuesAndGradientsThatWereNotKept) {
  const Case sound;  // keeps nothing
  ProgramOptions values, gradients;
  values.keep_all_values = true;
  gradients.keep_gradients = true;
  EXPECT_TRUE(complains(check_program(sound.graph, sound.needs, sound.program, values),
                        "at the end is read, but its memory was overwritten"));
  EXPECT_FALSE(check_program(sound.graph, sound.needs, sound.program, gradients).empty());
}

TEST(CheckProgram, FindsTheWrongShapeOfAGradient) {
  Case damaged;
  for (PlanStep& step : damaged.program.steps)
    for (TensorRef& ref : step.dinputs)
      if (ref.region == Region::kArena) ref.spec.dtype = DType::kF64;
  EXPECT_TRUE(complains(damaged.check(), "is planned as"));
}

TEST(CheckProgram, FindsStepsWithoutAllOperands) {
  Case damaged;
  damaged.program.steps.front().inputs.clear();
  EXPECT_TRUE(complains(damaged.check(), "lacks operands"));
}

TEST(ReplayProgram, PeakIsThatOfThePlannerWhereLivesHaveNoGaps) {
  const Case sound;
  const ProgramReport report = replay_program(sound.graph, sound.needs, sound.program, {});
  EXPECT_TRUE(report.problems.empty());
  EXPECT_GT(report.peak_live_bytes, 0);
  EXPECT_LE(report.peak_live_bytes, sound.program.peak_live_bytes);  // which rounds buffers up
  EXPECT_GE(static_cast<double>(report.peak_live_bytes), 0.95 * static_cast<double>(sound.program.peak_live_bytes));
}

TEST(CheckProgram, FindsStepsInTheWrongOrder) {
  Case damaged;
  std::swap(damaged.program.steps[1], damaged.program.steps[2]);
  EXPECT_FALSE(damaged.check().empty());
}

}  // namespace
}  // namespace permafrost
