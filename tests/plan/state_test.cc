// States in plans: bytes, addresses, and that they carry over from one run to the next.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/graph/ops/cross_entropy.h"
#include "core/graph/ops/shape_ops.h"
#include "parallel/plan/check.h"
#include "parallel/run/executor.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::all_close;
using testing::throws_error;

constexpr int64_t kBatch = 2, kWidth = 5;

/// total += x; "before" reads the state ahead of its writer, "after" behind it. A second state of another size.
Graph running_total(int64_t tokens) {
  const TensorSpec spec{{kBatch, tokens, kWidth}, DType::kF32};
  Graph g(DType::kF32);
  const Value x = g.input("x", spec), total = g.state("total", spec, true),
              last = g.state("last", {{kBatch, 1, kWidth}, DType::kF32}, false);

  const Value old = g.name(overwrite_token(g, add(g, x, x), last, 0), "with_last");
  const Value sum = g.name(add(g, total, x), "before");
  g.write_state(total, sum);
  g.write_state(last, slice_tokens(g, x, tokens - 1, tokens));
  const Value after = g.name(add(g, total, x), "after");
  const Value trained = add_param(g, add(g, after, old), g.param("table", {tokens, kWidth}, Initializer::zeros()));
  g.set_loss(g.name(cross_entropy(g, trained, g.input("labels", {{kBatch, tokens}, DType::kI32}),
                                  g.input("weights", {{kBatch, tokens}, DType::kF32}), 0)
                        .loss,
                    "loss"));
  return g;
}

Plan plan_of(const std::function<Graph(int64_t)>& build, const ProgramOptions& options = {}) {
  PlanRequest request;
  request.build_graph = build;
  request.buckets = {3};
  request.freezing = {{"table", true}};
  request.options = options;
  return make_plan(request);
}

std::vector<std::string> problems_of(const Plan& plan, const ProgramOptions& options = {}) {
  return check_program(plan.graphs[0], plan.needs[0], plan.programs[0], options);
}

TEST(PlannedState, HasItsBytesAndPlaces) {
  const Plan plan = plan_of(running_total);
  // 2 x 3 x 5 and 2 x 1 x 5 floats, each rounded up to 64 bytes.
  EXPECT_EQ(plan.memory.state, 128 + 64);
  EXPECT_EQ(plan.programs[0].state_bytes, 128 + 64);
  const TensorRef total = plan.programs[0].values[static_cast<size_t>(plan.graphs[0].find_value("total"))];
  EXPECT_EQ(total.region, Region::kState);
  EXPECT_EQ(total.offset, 0);
  EXPECT_TRUE(problems_of(plan).empty()) << problems_of(plan).front();
}

TEST(PlannedState, CarriesOverFromOneRunToTheNext) {
  for (const bool reuse : {true, false}) {
    ProgramOptions options;
    options.keep_all_values = true;
    options.reuse_memory = reuse;
    const Plan plan = plan_of(running_total, options);
    EXPECT_TRUE(problems_of(plan, options).empty());
    const StepMemory memory(plan);
    Executor executor(plan, memory, testing::cpu_context());
    const Tensor x = executor.value(0, "x");
    std::vector<double> total(static_cast<size_t>(x.elements()), 0.0), last(kBatch * kWidth, 0.0);
    for (int run = 1; run <= 3; ++run) {
      std::vector<double> after, with_last;
      for (size_t i = 0; i < total.size(); ++i) {
        const double value = 0.25 * static_cast<double>(i) + run;
        x.data<float>()[i] = static_cast<float>(value);
        total[i] += value;
        after.push_back(total[i] + value);
        const size_t sample = i / (3 * kWidth), token = i / kWidth % 3, column = i % kWidth;
        with_last.push_back(token == 0 ? last[sample * kWidth + column] : 2 * value);
        if (token == 2) last[sample * kWidth + column] = value;
      }
      executor.run(0, nullptr);
      EXPECT_TRUE(all_close(executor.value(0, "before"), total, {})) << run;  // the state of the run before, plus x
      EXPECT_TRUE(all_close(executor.value(0, "total"), total, {})) << run;
      EXPECT_TRUE(all_close(executor.value(0, "after"), after, {})) << run;  // the state of this run
      EXPECT_TRUE(all_close(executor.value(0, "with_last"), with_last, {})) << run;
      EXPECT_TRUE(all_close(executor.value(0, "last"), last, {})) << run;
    }
  }
}

TEST(PlannedState, CheckerFindsAReaderOnTheWrongSideOfTheWriter) {
  Plan plan = plan_of(running_total);
  const Graph& graph = plan.graphs[0];
  auto& steps = plan.programs[0].steps;
  const auto step_of = [&](const char* value) {
    return std::ranges::find_if(steps, [&](const PlanStep& step) {
      const auto& outputs = graph.ops()[static_cast<size_t>(step.op)].outputs;
      return step.kind == StepKind::kForward && !outputs.empty() && outputs[0] == graph.find_value(value);
    });
  };
  const auto writes_total = [&](const PlanStep& step) {
    return step.kind == StepKind::kForward &&
           graph.ops()[static_cast<size_t>(step.op)].state == graph.find_value("total");
  };
  std::swap(*step_of("after"), *std::ranges::find_if(steps, writes_total));
  const auto problems = problems_of(plan);
  ASSERT_FALSE(problems.empty());
  EXPECT_NE(problems[0].find("total is read before it was written"), std::string::npos) << problems[0];
}

TEST(PlannedState, CheckerFindsAStateThatIsNeverWritten) {
  Plan plan = plan_of(running_total);
  const Graph& graph = plan.graphs[0];
  std::erase_if(plan.programs[0].steps, [&](const PlanStep& step) {
    return step.kind == StepKind::kForward &&
           graph.ops()[static_cast<size_t>(step.op)].state == graph.find_value("last");
  });
  const auto problems = problems_of(plan);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("state last is never written"), std::string::npos) << problems[0];
}

/// Backward of scale_by_param reads its input again: a state that has changed by then would give a wrong gradient.
TEST(PlannedState, RefusesToOverwriteAStateThatBackwardReads) {
  const auto build = [](bool write_first) {
    return [write_first](int64_t tokens) {
      const TensorSpec spec{{kBatch, tokens, kWidth}, DType::kF32};
      Graph g(DType::kF32);
      const Value x = g.input("x", spec), state = g.state("memory", spec, true);
      if (write_first) g.write_state(state, add(g, x, x));
      const Value scaled = scale_by_param(g, state, g.param("table", {1}, Initializer::ones()));
      if (!write_first) g.write_state(state, scaled);
      g.set_loss(cross_entropy(g, scaled, g.input("labels", {{kBatch, tokens}, DType::kI32}),
                               g.input("weights", {{kBatch, tokens}, DType::kF32}), 0)
                     .loss);
      return g;
    };
  };
  EXPECT_TRUE(problems_of(plan_of(build(true))).empty());
  EXPECT_TRUE(throws_error([&] { plan_of(build(false)); }, ErrorKind::kInvalidArgument,
                           {"a state that backward reads must not be written after", "memory", "scale_by_param"}));
}

}  // namespace
}  // namespace permafrost
