// OPT against transformers', in fp64, both styles and odd sizes (tests/goldens/README.md).
#include <gtest/gtest.h>

#include "core/graph/ops/cross_entropy.h"
#include "models/blocks/loss.h"
#include "models/epalm/inputs.h"
#include "models/opt.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

Graph opt_graph(const OptConfig& config, const Shape& shape, DType compute) {
  Graph graph(compute);
  const Value ids = graph.input("input_ids", {shape, DType::kI32});
  const Value positions = graph.input("position_ids", {shape, DType::kI32});
  const Value lengths = graph.input("lengths", {{shape[0]}, DType::kI32});
  const Value labels = graph.input("labels", {shape, DType::kI32});
  const Value weights = graph.input("row_weight", {shape, DType::kF32});
  const Value logits = build_opt(graph, config, ids, positions, lengths);
  graph.set_loss(cross_entropy(graph, logits, labels, weights, 0, loss_scale_input(graph)).loss);
  return graph;
}

/// Row t predicts token t + 1; `weight_of` turns the number of predicted tokens into the weight of each.
void set_inputs(GraphRunner& runner, const Golden& golden, const std::function<double(int64_t)>& weight_of) {
  const Shape shape = golden.shape("input_ids");
  runner.set_input("input_ids", golden.values("input_ids"));
  fill_position_ids(lengths_in(golden), runner.input("position_ids"));
  const std::vector<int32_t> lengths = lengths_in(golden);
  runner.set_input("lengths", std::vector<double>(lengths.begin(), lengths.end()));
  const auto labels = golden.values("labels");
  std::vector<double> shifted(labels.size(), kIgnoredLabel), weights(labels.size(), 0);
  int64_t count = 0;
  for (size_t i = 0; i + 1 < labels.size(); ++i) {
    if ((static_cast<int64_t>(i) + 1) % shape[1] == 0 || labels[i + 1] == kIgnoredLabel) continue;
    shifted[i] = labels[i + 1];
    ++count;
  }
  for (size_t i = 0; i < labels.size(); ++i)
    if (shifted[i] != kIgnoredLabel) weights[i] = weight_of(count);
  runner.set_input("labels", shifted);
  runner.set_input("row_weight", weights);
}

/// Gradients of all parameters that train, against the file's.
void expect_gradients(const GraphRunner& runner, const Golden& golden, const std::vector<bool>& trainable,
                      PathLength backward) {
  for (size_t p = 0; p < trainable.size(); ++p) {
    if (!trainable[p]) continue;
    const std::string& name = runner.graph().params()[p].name;
    const std::string stored = "grad:" + name.substr(5);
    const auto want = golden.values(stored);
    // A bias of keys moves all scores of a query alike, so its gradient is 0: a sum that cancels. Its rounding errors
    // are those of its terms, whose size shows in the gradient of the weight beside it.
    const bool cancels = stored.ends_with("k_proj.bias");
    const auto scale = cancels ? golden.values(stored.substr(0, stored.size() - 4) + "weight") : want;
    EXPECT_TRUE(all_close(runner.gradient(name), want, model_tolerance(DType::kF32, backward, scale))) << name;
  }
}

class OptGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(OptGolden, ValuesLossesAndAllGradients) {
  const Golden golden(GetParam() + ".safetensors"), stored(GetParam() + "_weights.safetensors");
  const OptConfig config = opt_config_of(golden);
  const Shape shape = golden.shape("input_ids");
  const Graph graph = opt_graph(config, shape, DType::kF32);
  GraphRunner runner(graph, std::vector<bool>(graph.params().size(), true));
  load_params(runner, "text.", stored);
  const PathLength path = opt_path(config, shape[1]);

  set_inputs(runner, golden, [&](int64_t) { return 0.1 / static_cast<double>(shape[0]); });
  const double sample_sum = runner.run(), want_sum = golden.values("loss_sample_sum")[0];
  EXPECT_NEAR(sample_sum, want_sum, model_tolerance(DType::kF32, path, {want_sum}).absolute);

  set_inputs(runner, golden, [](int64_t count) { return 1.0 / static_cast<double>(count); });
  const double loss = runner.run(), want_loss = golden.values("loss")[0];
  EXPECT_NEAR(loss, want_loss, model_tolerance(DType::kF32, path, {want_loss}).absolute);

  std::vector<std::string> names{"text.embed.out", "text.final.out", "logits"};
  for (int64_t i = 0; i < config.layers; ++i) names.push_back(concat("text.layers.", i, ".out"));
  for (const std::string& name : names) {
    const Tensor got = runner.value(name);
    ASSERT_TRUE(got.defined()) << name;
    EXPECT_EQ(got.shape(), golden.shape(name)) << name;
    const auto want = golden.values(name);
    EXPECT_TRUE(all_close(got, want, model_tolerance(DType::kF32, path, want))) << name;
  }
  const PathLength backward = gradient_path(path, shape.elements());
  expect_gradients(runner, golden, std::vector<bool>(graph.params().size(), true), backward);
}

/// Weights of q, k and v in a row are multiplied as one; where they lie apart, one by one, whichever train.
TEST_P(OptGolden, GradientsWhereverWeightsLieAndWhicheverTrain) {
  const Golden golden(GetParam() + ".safetensors"), stored(GetParam() + "_weights.safetensors");
  const OptConfig config = opt_config_of(golden);
  const Shape shape = golden.shape("input_ids");
  const Graph graph = opt_graph(config, shape, DType::kF32);
  for (const bool together : {false, true})
    for (const char* pattern : {"*q_proj.*", "*v_proj.weight", "*k_proj.bias", "*embed_positions.weight", "*"}) {
      SCOPED_TRACE(concat(pattern, together ? " together" : " apart"));
      GraphRunner::Options options;
      options.params_together = together;
      const std::vector<bool> trainable = trainable_by(graph, {pattern});
      GraphRunner runner(graph, trainable, options);
      load_params(runner, "text.", stored);
      set_inputs(runner, golden, [](int64_t count) { return 1.0 / static_cast<double>(count); });
      runner.run();
      expect_gradients(runner, golden, trainable, gradient_path(opt_path(config, shape[1]), shape.elements()));
    }
}

TEST_P(OptGolden, NarrowDtypesAreCloseWithinTheirRoundings) {
  const Golden golden(GetParam() + ".safetensors"), stored(GetParam() + "_weights.safetensors");
  const OptConfig config = opt_config_of(golden);
  const Shape shape = golden.shape("input_ids");
  for (const DType compute : narrow_dtypes()) {
    SCOPED_TRACE(to_string(compute));
    const Graph graph = opt_graph(config, shape, compute);
    GraphRunner::Options options;
    options.matrices = compute;
    GraphRunner runner(graph, std::vector<bool>(graph.params().size(), true), options);
    load_params(runner, "text.", stored);
    set_inputs(runner, golden, [](int64_t count) { return 1.0 / static_cast<double>(count); });
    runner.set_loss_scale(scale_for(compute));
    const double loss = runner.run(), want_loss = golden.values("loss")[0];
    const PathLength path = opt_path(config, shape[1]);
    EXPECT_NEAR(loss, want_loss, model_tolerance(compute, path, {want_loss}).absolute);
    EXPECT_EQ(runner.value("logits").dtype(), DType::kF32);
    const auto want = golden.values("logits");
    EXPECT_TRUE(all_close(runner.value("logits"), want, model_tolerance(compute, path, want)));
    GradientDistance distance;
    for (const ParamInfo& info : graph.params())
      distance.add(runner.gradient(info.name), golden.values("grad:" + info.name.substr(5)), scale_for(compute));
    EXPECT_LE(distance.relative(), model_tolerance(compute, gradient_path(path, 0), {1.0}).absolute);
  }
}

INSTANTIATE_TEST_SUITE_P(Styles, OptGolden, ::testing::Values("opt_pre", "opt_post", "opt_odd"));

TEST(Opt, DropoutStandsInThreePlacesAndOnlyWhenAsked) {
  OptConfig config;
  config.layers = 2;
  config.hidden = config.word_embed_proj_dim = 8;
  config.heads = 2;
  config.ffn = 12;
  config.vocab = 11;
  for (bool asked : {false, true}) {
    Graph graph(DType::kF32);
    const Value ids = graph.input("input_ids", {{1, 3}, DType::kI32}),
                positions = graph.input("position_ids", {{1, 3}, DType::kI32});
    OptLayerOptions options;
    if (asked) options.dropout_address = graph.input("random_address", {{3}, DType::kI64});
    Value x = opt_embedding_dropout(graph, config, opt_embed(graph, config, ids, positions), options.dropout_address);
    for (int64_t i = 0; i < config.layers; ++i) x = opt_layer(graph, config, i, x, options);
    int64_t dropouts = 0;
    for (const OpInfo& op : graph.ops()) dropouts += op.op->kind() == "dropout";
    EXPECT_EQ(dropouts, asked ? 1 + 2 * config.layers : 0);
  }
}

TEST(Opt, RefusesWhatDoesNotFit) {
  OptConfig config;
  config.max_positions = 4;
  Graph graph(DType::kF32);
  const Value ids = graph.input("a", {{1, 5}, DType::kI32}), wrong = graph.input("b", {{1, 4}, DType::kI32});
  EXPECT_TRUE(throws_error([&] { opt_embed(graph, config, ids, ids); }, ErrorKind::kConfig,
                           {"must fit 4 positions", "got 5 tokens"}));
  EXPECT_TRUE(throws_error([&] { opt_embed(graph, config, ids, wrong); }, ErrorKind::kShapeMismatch,
                           {"input_ids and position_ids must be (B, T) i32", "(1, 4)"}));
  config.heads = 5;
  EXPECT_TRUE(throws_error([&] { config.check(); }, ErrorKind::kConfig,
                           {"opt: hidden must be a multiple of heads = 5", "got 768"}));
  config = {};
  config.vocab = 0;
  EXPECT_TRUE(throws_error([&] { config.check(); }, ErrorKind::kConfig, {"vocab must be 1 and up", "got 0"}));
  config = {};
  config.dropout = 1;
  EXPECT_TRUE(throws_error([&] { config.check(); }, ErrorKind::kConfig, {"dropout must be 0 to below 1"}));
}

}  // namespace
}  // namespace permafrost
