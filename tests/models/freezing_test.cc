// Freezing at the level of whole models: whatever is frozen, the rest has the gradients it has when nothing is, and
// what has nothing trainable upstream saves nothing.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/epalm/inputs.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

const TextBatch kBatch = TextBatch::of({{2, 5, 9, 14, 2}, {2, 7, 2}}, 2, 1);

/// A runner with seeded parameters and inputs; its graph must outlive it.
GraphRunner seeded(const Graph& graph, const EpalmConfig& config, const std::vector<bool>& trainable) {
  GraphRunner::Options options;
  options.keep_values = false;
  GraphRunner runner(graph, trainable, options);
  for (size_t p = 0; p < graph.params().size();
       ++p) {  // wider than the initialisers, so that every gradient is of size
    const ParamInfo& info = graph.params()[p];
    runner.set_param(info.name, values_of(random_tensor(DType::kF32, info.shape, 100 + p, 0.3)));
  }
  runner.set_input("images", values_of(random_tensor(DType::kF32, runner.input("images").shape(), 7)));
  const EpalmTextInputs in{runner.input("input_ids"),     runner.input("position_ids"), runner.input("lengths_before"),
                           runner.input("lengths_after"), runner.input("open_lengths"), runner.input("labels"),
                           runner.input("row_weight")};
  fill_epalm_inputs(config, kBatch, 1, LossWeighting{}.row_weight(count_loss(kBatch)), in);
  return runner;
}

Graph small_graph(const EpalmConfig& config) { return build_epalm(config, DType::kF32, {2, 5, false}); }

class ModelFreezing : public ::testing::TestWithParam<std::string> {};

TEST_P(ModelFreezing, GradientsAreThoseOfTheUnfrozenRun) {
  const EpalmConfig config = small_epalm();
  const Graph graph = small_graph(config);
  GraphRunner everything = seeded(graph, config, std::vector<bool>(graph.params().size(), true));
  const std::vector<bool> trainable = trainable_by(graph, {GetParam()});
  GraphRunner some = seeded(graph, config, trainable);
  EXPECT_EQ(everything.run(), some.run());
  int compared = 0;
  for (size_t p = 0; p < graph.params().size(); ++p) {
    const std::string& name = graph.params()[p].name;
    if (!trainable[p]) {
      EXPECT_FALSE(some.gradient(name).defined()) << name;
      continue;
    }
    EXPECT_TRUE(same_bits(some.gradient(name), everything.gradient(name))) << name;
    // The bias of keys moves all scores of a row alike: its gradient is 0 but for rounding.
    const auto values = values_of(some.gradient(name));
    EXPECT_TRUE(std::ranges::any_of(values, [](double g) { return g != 0; })) << name;
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

TEST_P(ModelFreezing, WhatIsBehindTheFrontierSavesNothing) {
  const EpalmConfig config = small_epalm();
  const Graph graph = small_graph(config);
  const GraphRunner runner = seeded(graph, config, trainable_by(graph, {GetParam()}));
  const Program& program = runner.program();
  std::vector<bool> upstream(graph.values().size(), false);  // something trainable upstream, found without needs.cc
  const std::vector<bool> trainable = trainable_by(graph, {GetParam()});
  for (const OpInfo& op : graph.ops()) {
    bool any = false;
    for (int v : op.inputs) any = any || upstream[static_cast<size_t>(v)];
    for (int p : op.params) any = any || trainable[static_cast<size_t>(p)];
    for (int v : op.outputs) upstream[static_cast<size_t>(v)] = any;
  }
  for (const PlanStep& step : program.steps) {
    const OpInfo& op = graph.ops()[static_cast<size_t>(step.op)];
    const bool behind = std::ranges::none_of(op.outputs, [&](int v) { return upstream[static_cast<size_t>(v)]; });
    if (!behind) continue;
    EXPECT_EQ(step.kind, StepKind::kForward) << op.scope;
    EXPECT_TRUE(step.saved.empty()) << op.scope;
  }
  for (size_t v = 0; v < upstream.size(); ++v)
    EXPECT_TRUE(upstream[v] || program.value_gradients[v].region == Region::kNone) << graph.values()[v].name;
}

INSTANTIATE_TEST_SUITE_P(
    Trainable, ModelFreezing,
    ::testing::Values("connector.*", "connector.1.weight", "prompt_module.*", "prompt_module.prefix_embedding.0.weight",
                      "model_text.*", "model_text.*.layers.4.*", "*adapter_scale", "vision.*", "vision.blocks.1.*",
                      "vision.cls_token", "vision.norm.*", "text.*", "text.model.decoder.embed_tokens.weight",
                      "text.model.decoder.embed_positions.weight", "text.model.decoder.project_in.weight",
                      "text.model.decoder.project_out.weight", "text.model.decoder.layers.0.fc?.bias",
                      "text.model.decoder.layers.3.self_attn.v_proj.*", "*layer_norm*", "*.bias"));

TEST(ModelFreezing, FrontierOfThePublishedVariants) {
  EpalmConfig config = small_epalm();
  config.adaptor.reset();
  const auto class_of = [](const Graph& graph, const NeedAnalysis& needs, const std::string& unit) {
    for (size_t u = 0; u < graph.units().size(); ++u)
      if (graph.units()[u].name == unit) return needs.unit_class[u];
    ADD_FAILURE() << "no unit " << unit;
    return FreezeClass::kPrefix;
  };
  for (const bool prompt : {false, true}) {
    config.prompt = prompt ? EpalmConfig::Prompt::kMlp : EpalmConfig::Prompt::kNone;
    const Graph graph = small_graph(config);
    const NeedAnalysis needs = analyse_needs(graph, resolve_freezing(graph, epalm_freezing(config)));
    for (const char* unit : {"vision.embed", "vision.blocks.0", "vision.blocks.2", "vision.norm", "text.embed"})
      EXPECT_EQ(class_of(graph, needs, unit), FreezeClass::kPrefix) << unit;
    EXPECT_EQ(class_of(graph, needs, "connector"), FreezeClass::kFirst);
    // Without prompts the layers before the window depend on nothing trainable.
    const FreezeClass early = prompt ? FreezeClass::kPassThrough : FreezeClass::kPrefix;
    EXPECT_EQ(class_of(graph, needs, "text.layers.0"), early);
    EXPECT_EQ(class_of(graph, needs, "text.layers.1"), early);
    EXPECT_EQ(class_of(graph, needs, "text.layers.2"), FreezeClass::kPassThrough);
    EXPECT_EQ(class_of(graph, needs, "text.head"), FreezeClass::kPassThrough);
    if (!prompt) continue;
    EXPECT_EQ(class_of(graph, needs, "prompt"), FreezeClass::kInner);
  }
}

}  // namespace
}  // namespace permafrost
