// The checker must notice every kind of damage; a checker that cannot fail proves nothing.
#include "parallel/plan/check.h"

#include <gtest/gtest.h>

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
  std::vector<std::string> check() const { return check_program(graph, needs, program); }
};

/// Moves every reference to a buffer.
void move_buffer(Program& program, int buffer, int64_t offset) {
  for (PlanStep& step : program.steps) {
    for (auto* refs : {&step.inputs, &step.outputs, &step.saved, &step.doutputs, &step.dinputs, &step.dparams})
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
    if (damaged.program.steps[s].kind == StepKind::kSumGradient) continue;  // its absence is a matter of the sink
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

TEST(CheckProgram, FindsStepsInTheWrongOrder) {
  Case damaged;
  std::swap(damaged.program.steps[1], damaged.program.steps[2]);
  EXPECT_FALSE(damaged.check().empty());
}

}  // namespace
}  // namespace permafrost
