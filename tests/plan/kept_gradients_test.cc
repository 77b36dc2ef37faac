// Gradients kept for probing must be right at the end, also where the backward pass of their producer works in place.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/graph/ops/activation.h"
#include "core/graph/ops/cross_entropy.h"
#include "core/graph/ops/linear.h"
#include "core/graph/ops/shape_ops.h"
#include "parallel/plan/check.h"
#include "parallel/run/executor.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

/// Two linear layers with the activation in between, as part of the first or as an operation of its own. Its output is
/// public and read twice, so that its gradient has two parts.
Graph perceptron(DType compute, Activation kind, bool fused) {
  Graph g(compute);
  const Value x = g.input("x", {{2, 4, 8}, compute});
  const auto weight = [&](const char* name, int64_t n, int64_t k) {
    return g.param(name, {n, k}, Initializer::normal(0.5f));
  };
  Value hidden = linear(g, x, weight("w1", 12, 8), {}, fused ? kind : Activation::kNone);
  if (!fused) hidden = activation(g, hidden, kind);
  g.name(hidden, "hidden");
  const Value logits = add(g, linear(g, hidden, weight("w2", 6, 12)), linear(g, hidden, weight("w3", 6, 12)));
  const Value labels = g.input("labels", {{2, 4}, DType::kI32}),
              weights = g.input("labels_weights", {{2, 4}, DType::kF32});
  g.set_loss(g.name(cross_entropy(g, logits, labels, weights, 0).loss, "loss"));
  return g;
}

struct Probe {
  Plan plan;
  StepMemory memory;
  Executor executor;
  static Plan make(DType compute, Activation kind, bool fused, const ProgramOptions& options) {
    PlanRequest request;
    request.build_graph = [=](int64_t) { return perceptron(compute, kind, fused); };
    request.buckets = {4};
    request.freezing = {{"*", true}};
    request.options = options;
    return make_plan(request);
  }
  Probe(DType compute, Activation kind, bool fused, const ProgramOptions& options)
      : plan(make(compute, kind, fused, options)),
        memory(plan),
        executor(plan, memory, testing::cpu_context(), {.poison_released = true}) {
    for (const ParamPlan& param : plan.params) {
      const Tensor t = memory.param(param);
      fill(param.initializer, 7, param.name, t.dtype(), 0,
           {static_cast<std::byte*>(t.raw()), static_cast<size_t>(t.bytes())});
    }
    const Tensor x = executor.value(0, "x");
    const auto values = testing::random_tensor(compute, x.shape(), 3);
    std::copy_n(static_cast<const std::byte*>(values.view().raw()), x.bytes(), static_cast<std::byte*>(x.raw()));
    for (int i = 0; i < 8; ++i) {
      executor.value(0, "labels").data<int32_t>()[i] = i % 6;
      executor.value(0, "labels_weights").data<float>()[i] = 1;
    }
    executor.run(0, nullptr);
  }
};

ProgramOptions keeping(bool reuse) {
  ProgramOptions options;
  options.keep_all_values = options.keep_gradients = true;
  options.reuse_memory = reuse;
  return options;
}

TEST(KeptGradients, OfAPublicActivationSurviveTheBackwardPassThatWorksInPlace) {
  for (const DType compute : {DType::kF32, DType::kBF16})
    for (const Activation kind : {Activation::kRelu, Activation::kGelu, Activation::kTanh})
      for (const bool reuse : {true, false}) {
        const Probe fused(compute, kind, true, keeping(reuse)), apart(compute, kind, false, keeping(reuse));
        const Plan& plan = fused.plan;
        const auto problems = check_program(plan.graphs[0], plan.needs[0], plan.programs[0], keeping(reuse));
        EXPECT_TRUE(problems.empty()) << problems.front();
        const Tensor gradient = fused.executor.value_gradient(0, "hidden");
        // The gradient of the activation's output does not depend on how the activation itself goes back. In bf16 the
        // value does, by one rounding of the pre-activation, which moves the gradient by a few roundings of its size.
        const auto values = testing::values_of(gradient),
                   want = testing::values_of(apart.executor.value_gradient(0, "hidden"));
        double largest = 0;
        for (double w : want) largest = std::max(largest, std::abs(w));
        EXPECT_TRUE(testing::all_close(gradient, want, {compute == DType::kF32 ? 0 : 4 * 0x1p-8 * largest, 0}))
            << to_string(kind);
        EXPECT_TRUE(std::ranges::any_of(values, [](double v) { return v != 0; }));
      }
}

TEST(KeptGradients, CostNothingWhereNothingIsKept) {
  const Plan plan = Probe::make(DType::kF32, Activation::kGelu, true, {});
  for (const PlanStep& step : plan.programs[0].steps) EXPECT_NE(step.kind, StepKind::kCopyGradient);
}

TEST(KeptGradients, CheckerSeesOneDestroyed) {
  Plan plan = Probe::make(DType::kF32, Activation::kGelu, true, keeping(true));
  Program& program = plan.programs[0];
  const auto copy = std::ranges::find(program.steps, StepKind::kCopyGradient, &PlanStep::kind);
  ASSERT_NE(copy, program.steps.end());
  for (PlanStep& step : program.steps)  // backward works on the kept gradient itself
    if (step.kind == StepKind::kBackward && step.op == copy->op) step.doutputs = copy->doutputs;
  const auto problems = check_program(plan.graphs[0], plan.needs[0], program, keeping(true));
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("gradient of hidden is read, but its memory was overwritten by a destroyed gradient"),
            std::string::npos)
      << problems[0];
}

}  // namespace
}  // namespace permafrost
