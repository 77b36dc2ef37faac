#include "parallel/plan/program.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/graph/freezing.h"
#include "core/graph/ops/joined_linear.h"
#include "core/graph/ops/layer_norm.h"
#include "core/graph/ops/shape_ops.h"
#include "parallel/plan/check.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

using testing::toy_transformer;
using testing::ToyConfig;

std::vector<ParamPlacement> placements(const Graph& g) {
  std::vector<ParamPlacement> list;
  for (const ParamInfo& p : g.params()) list.push_back({Region::kFrozen, 0, {p.shape, DType::kF32}});
  return list;
}

struct Built {
  Graph graph;
  NeedAnalysis needs;
  Program program;
};

Built build(const std::vector<FreezeRule>& rules, ProgramOptions options = {}, ToyConfig config = {}) {
  Graph graph = toy_transformer(config);
  NeedAnalysis needs = analyse_needs(graph, resolve_freezing(graph, rules, true));
  Program program = build_program(graph, needs, placements(graph), options);
  return {std::move(graph), std::move(needs), std::move(program)};
}

const std::vector<std::vector<FreezeRule>>& freezings() {
  static const std::vector<std::vector<FreezeRule>> all = {
      {{"*", true}},
      {},
      {{"embed.weight", true}},
      {{"blocks.1.*", true}},
      {{"blocks.2.fc2.bias", true}},
      {{"norm.*", true}},
      {{"blocks.0.norm1.weight", true}, {"blocks.2.qkv.weight", true}},
      {{"blocks.*.bias", true}},
  };
  return all;
}

TEST(Program, IsRightForEveryFreezing) {
  for (const auto& rules : freezings())
    for (const bool reuse : {true, false})
      for (const bool keep : {true, false})
        for (const DType compute : {DType::kF32, DType::kBF16}) {
          ProgramOptions options;
          options.reuse_memory = reuse;
          options.keep_all_values = options.keep_gradients = keep;
          ToyConfig config;
          config.compute = compute;
          const Built b = build(rules, options, config);
          const std::vector<std::string> problems = check_program(b.graph, b.needs, b.program, options);
          EXPECT_TRUE(problems.empty()) << problems.front() << " (first rule "
                                        << (rules.empty() ? "none" : rules[0].pattern) << ")";
        }
}

TEST(Program, ArenaIsCloseToThePeakOfLiveBytes) {
  for (const auto& rules : freezings()) {
    const Built b = build(rules, {}, {4, 33, 64, 4, 256, 211, 6, DType::kF32, Activation::kRelu});
    EXPECT_LE(static_cast<double>(b.program.arena_bytes), 1.05 * static_cast<double>(b.program.peak_live_bytes));
  }
}

TEST(Program, FrozenMeansNoBackwardNoSavedNothingSummed) {
  const Built b = build({});
  for (const PlanStep& step : b.program.steps) EXPECT_EQ(step.kind, StepKind::kForward);
  for (const PlannedBuffer& buffer : b.program.buffers) EXPECT_NE(buffer.kind, BufferKind::kSaved) << buffer.name;
}

TEST(Program, BackwardStopsAtTheFirstTrainableParameter) {
  const Built b = build({{"blocks.2.fc2.bias", true}});
  for (const PlanStep& step : b.program.steps) {
    if (step.kind != StepKind::kBackward) continue;
    const std::string& unit = b.graph.units()[static_cast<size_t>(step.unit)].name;
    EXPECT_TRUE(unit == "blocks.2" || unit == "head") << unit;
    if (unit != "blocks.2" || b.graph.ops()[static_cast<size_t>(step.op)].op->kind() != "linear") continue;
    for (const TensorRef& d : step.dinputs) EXPECT_EQ(d.region, Region::kNone);
  }
}

TEST(Program, SumsEachTrainableOnceAfterItsLastContribution) {
  const Built b = build({{"*", true}});
  std::vector<int> sums(b.graph.params().size(), 0);
  for (const PlanStep& step : b.program.steps)
    if (step.kind == StepKind::kSumGradient) ++sums[static_cast<size_t>(step.param)];
  for (size_t p = 0; p < sums.size(); ++p) EXPECT_EQ(sums[p], 1) << b.graph.params()[p].name;
}

TEST(Program, ResidualStreamHasOneGradientBuffer) {
  const Built b = build({{"embed.weight", true}}, {}, {2, 5, 16, 2, 24, 11, 6, DType::kF32, Activation::kRelu});
  const TensorRef first = b.program.value_gradients[static_cast<size_t>(b.graph.find_value("blocks.0.out"))];
  for (int i = 1; i < 6; ++i) {
    const int v = b.graph.find_value(concat("blocks.", i, ".out"));
    EXPECT_EQ(b.program.value_gradients[static_cast<size_t>(v)].buffer, first.buffer) << i;
  }
}

TEST(Program, SaysWhichParametersThePlanPutsBehindTheOneBefore) {
  Graph g(DType::kF32);
  const Value x = g.input("x", {{2, 4}, DType::kF32});
  std::vector<Param> weights;
  {
    const auto unit = g.unit("a");
    for (const char* name : {"q", "k"}) weights.push_back(g.param(name, {4, 4}, Initializer::zeros()));
    const auto inner = g.unit("b");
    weights.push_back(g.param("v", {4, 4}, Initializer::zeros()));
  }
  joined_linear(g, x, weights);
  const TensorSpec spec{{4, 4}, DType::kF32};
  const auto in = [&](Region region, int64_t offset) { return TensorRef{region, offset, spec, -1}; };
  const auto found = [&](const TensorRef& q, const TensorRef& k, const TensorRef& v) {
    PlanStep step;
    step.op = 0;
    step.params = {q, k, v};
    return adjoining_params(g, step);
  };
  const Region frozen = Region::kFrozen, slots = Region::kSlots, working = Region::kWorking;
  EXPECT_EQ(found(in(frozen, 64), in(frozen, 128), in(frozen, 256)), 0b010u);
  EXPECT_EQ(found(in(slots, 64), in(slots, 128), in(slots, 256)), 0b010u);
  EXPECT_EQ(found(in(working, 0), in(working, 64), in(working, 192)), 0b010u);
  EXPECT_EQ(found(in(frozen, 0), in(frozen, 64), in(frozen, 128)), 0b010u) << "v is of another unit";
  EXPECT_EQ(found(in(working, 0), in(frozen, 64), in(frozen, 128)), 0u) << "another region";
  EXPECT_EQ(found(in(frozen, 0), in(frozen, 128), in(frozen, 256)), 0u) << "a gap";
  EXPECT_EQ(found(in(frozen, 64), in(frozen, 0), in(frozen, 256)), 0u) << "in another order";
  EXPECT_EQ(found({}, {}, {}), 0u) << "not read by backward";
  TensorRef half = in(frozen, 64);
  half.spec.dtype = DType::kBF16;
  EXPECT_EQ(found(in(frozen, 0), half, in(frozen, 256)), 0u) << "another dtype";
}

TEST(Program, ReuseSavesMemory) {
  ProgramOptions apart;
  apart.reuse_memory = false;
  EXPECT_LT(2 * build({{"*", true}}).program.arena_bytes, build({{"*", true}}, apart).program.arena_bytes);
}

TEST(Program, ForwardOnlyPlansNoBackward) {
  ProgramOptions options;
  options.forward_only = true;
  const Built b = build({{"*", true}}, options);
  for (const PlanStep& step : b.program.steps) EXPECT_EQ(step.kind, StepKind::kForward);
}

TEST(Program, PrunesWhatNobodyWants) {
  Graph g(DType::kF32);
  const Value x = g.input("x", {{2, 3, 4}, DType::kF32});
  // No loss, nothing named: everything runs, since the caller has some reason to build it.
  EXPECT_TRUE(build_program(g, analyse_needs(g, {}), {}, {}).steps.empty());
  (void)x;
  const Built b = build({});
  size_t operations = 0;
  for (const PlanStep& step : b.program.steps) operations += step.before < 0 ? 1 : 2;
  EXPECT_EQ(operations, b.graph.ops().size());
}

/// Sums that a norm makes on its way, by the names of the sums.
std::vector<std::string> sums_made_by_norms(const Graph& graph, const Program& program) {
  std::vector<std::string> names;
  for (const PlanStep& step : program.steps) {
    if (step.before < 0) continue;
    const OpInfo &norm = graph.ops()[static_cast<size_t>(step.op)],
                 &sum = graph.ops()[static_cast<size_t>(step.before)];
    EXPECT_TRUE(step.kind == StepKind::kForward && norm.op->kind() == "layer_norm" && sum.op->kind() == "add");
    EXPECT_EQ(norm.inputs[0], sum.outputs[0]);
    EXPECT_EQ(step.before_inputs.size(), 2u);
    EXPECT_EQ(step.unit, norm.unit);
    names.push_back(graph.values()[static_cast<size_t>(sum.outputs[0])].name);
  }
  return names;
}

TEST(Program, NormsMakeTheSumsInFrontOfThem) {
  // Two per block: in front of its second norm, and its output, in front of the next block's or the head's.
  const Built b = build({{"blocks.1.*", true}});
  const std::vector<std::string> names = sums_made_by_norms(b.graph, b.program);
  ASSERT_EQ(names.size(), 6u);
  for (size_t block = 0; block < 3; ++block) EXPECT_EQ(names[2 * block + 1], concat("blocks.", block, ".out"));
}

TEST(Program, NormsMakeNoSumThatIsUsedBefore) {
  Graph g(DType::kF32);
  const auto scope = g.unit("unit");
  const Value x = g.input("x", {{2, 3}, DType::kF32}), y = g.input("y", {{2, 3}, DType::kF32});
  const auto norm = [&](Value v, const std::string& name) {
    return layer_norm(g, v, g.param(name + ".weight", {3}, Initializer::ones()),
                      g.param(name + ".bias", {3}, Initializer::zeros()), 1e-5f);
  };
  const Value first = add(g, x, y), between = add(g, first, first), second = add(g, between, y);
  g.name(norm(first, "late"), "late");     // another operation ran since
  g.name(norm(second, "later"), "later");  // and another norm
  const Value third = add(g, second, first);
  g.name(norm(third, "once"), "once");
  g.name(norm(third, "twice"), "twice");  // made by the norm before
  const std::vector<bool> frozen(g.params().size(), false);
  std::vector<ParamPlacement> places = placements(g);
  const Program program = build_program(g, analyse_needs(g, frozen), places, {});
  ASSERT_EQ(program.steps.size(), g.ops().size() - 1);
  EXPECT_EQ(sums_made_by_norms(g, program).size(), 1u);
  EXPECT_TRUE(check_program(g, analyse_needs(g, frozen), program, {}).empty());
}

}  // namespace
}  // namespace permafrost
