// The vision transformer against timm's, in fp64 (tests/goldens/README.md).
#include <gtest/gtest.h>

#include "models/vit.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

/// A graph whose loss is the one of the golden: features and final norm times given cotangents.
Graph golden_graph(const VitConfig& config, int64_t batch, DType compute, bool with_loss) {
  Graph graph(compute);
  const Value images =
      graph.input("images", {{batch, config.channels, config.image_size, config.image_size}, DType::kF32});
  VitOptions options;
  options.all_tokens = true;
  for (int64_t i = 0; i < config.depth; ++i) options.features.push_back(i);
  const VitValues values = build_vit(graph, config, images, options);
  if (!with_loss) return graph;
  std::vector<Value> x = values.features, c;
  x.push_back(values.norm);
  for (Value v : x) c.push_back(graph.input("cot:" + graph.values()[static_cast<size_t>(v.index)].name, graph.spec(v)));
  dot_loss(graph, x, c);
  return graph;
}

class VitGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(VitGolden, ValuesAndAllGradients) {
  const Golden golden(GetParam() + ".safetensors"), weights(GetParam() + "_weights.safetensors");
  const VitConfig config = vit_config_of(golden);
  const int64_t batch = golden.shape("images")[0];
  const Graph graph = golden_graph(config, batch, DType::kF32, true);
  GraphRunner runner(graph, std::vector<bool>(graph.params().size(), true));
  load_params(runner, "vision.", weights);
  for (const ValueInfo& value : graph.values())
    if (value.role == ValueRole::kInput) runner.set_input(value.name, golden.values(value.name));
  const double loss = runner.run();

  const PathLength path = vit_path(config);
  std::vector<std::string> names{"vision.embed.out", "vision.norm.out"};
  for (int64_t i = 0; i < config.depth; ++i) {
    names.push_back(concat("vision.blocks.", i, ".out"));
    names.push_back(concat("features.", i));
  }
  for (const std::string& name : names) {
    const Tensor got = runner.value(name);
    ASSERT_TRUE(got.defined()) << name;
    EXPECT_EQ(got.shape(), golden.shape(name)) << name;
    const auto want = golden.values(name);
    EXPECT_TRUE(all_close(got, want, model_tolerance(DType::kF32, path, want))) << name;
  }
  const double want_loss = golden.values("loss")[0];
  // A sum of as many products as there are elements in features and final norm, each as wrong as its value.
  EXPECT_NEAR(loss, want_loss, model_tolerance(DType::kF32, path, {1.0}).absolute * 10 * std::abs(want_loss));
  for (const ParamInfo& info : graph.params()) {
    const auto want = golden.values("grad:" + info.name.substr(7));
    const PathLength backward = gradient_path(path, batch * config.tokens());
    EXPECT_TRUE(all_close(runner.gradient(info.name), want, model_tolerance(DType::kF32, backward, want))) << info.name;
  }
}

TEST_P(VitGolden, NarrowDtypesAreCloseWithinTheirRoundings) {
  const Golden golden(GetParam() + ".safetensors"), weights(GetParam() + "_weights.safetensors");
  const VitConfig config = vit_config_of(golden);
  for (const DType compute : narrow_dtypes()) {
    SCOPED_TRACE(to_string(compute));
    const Graph graph = golden_graph(config, golden.shape("images")[0], compute, false);
    GraphRunner::Options options;
    options.matrices = compute;
    GraphRunner runner(graph, std::vector<bool>(graph.params().size(), false), options);
    load_params(runner, "vision.", weights);
    runner.set_input("images", golden.values("images"));
    runner.run();
    for (int64_t i = 0; i < config.depth; ++i) {
      const auto want = golden.values(concat("features.", i));
      const Tensor got = runner.value(concat("features.", i));
      ASSERT_EQ(got.dtype(), compute);
      EXPECT_TRUE(all_close(got, want, model_tolerance(compute, vit_path(config), want))) << "feature " << i;
    }
  }
}

TEST_P(VitGolden, ClassTokenAloneGivesTheSameLastFeature) {
  const Golden golden(GetParam() + ".safetensors"), weights(GetParam() + "_weights.safetensors");
  const VitConfig config = vit_config_of(golden);
  Graph graph(DType::kF32);
  const Value images = graph.input("images", {golden.shape("images"), DType::kF32});
  const VitValues values = build_vit(graph, config, images, {{config.depth - 1}, false});
  EXPECT_EQ(graph.spec(values.blocks.back()).shape, Shape({golden.shape("images")[0], 1, config.dim}));
  GraphRunner runner(graph, std::vector<bool>(graph.params().size(), false));
  load_params(runner, "vision.", weights);
  runner.set_input("images", golden.values("images"));
  runner.run();
  const auto want = golden.values(concat("features.", config.depth - 1));
  EXPECT_TRUE(all_close(runner.value("features.0"), want, model_tolerance(DType::kF32, vit_path(config), want)));
}

INSTANTIATE_TEST_SUITE_P(Sizes, VitGolden, ::testing::Values("vit_small", "vit_odd"));

TEST(Vit, RefusesWhatDoesNotFit) {
  const auto build = [](const VitConfig& config, const Shape& images, const VitOptions& options = {}) {
    Graph graph(DType::kF32);
    build_vit(graph, config, graph.input("images", {images, DType::kF32}), options);
  };
  const VitConfig b16 = VitConfig::b16();
  EXPECT_TRUE(throws_error(
      [&] {
        build(b16, {1, 3, 224, 160});
      },
      ErrorKind::kShapeMismatch, {"vit: images must be (B, 3, 224, 224) f32", "(1, 3, 224, 160)"}));
  EXPECT_TRUE(throws_error([&] { build(b16, {1, 1, 224, 224}); }, ErrorKind::kShapeMismatch, {"(1, 1, 224, 224)"}));
  VitConfig bad = b16;
  bad.image_size = 225;
  EXPECT_TRUE(throws_error(
      [&] {
        build(bad, {1, 3, 225, 225});
      },
      ErrorKind::kConfig, {"image_size must be a multiple of patch = 16", "225"}));
  bad = b16;
  bad.heads = 7;
  EXPECT_TRUE(throws_error(
      [&] {
        build(bad, {1, 3, 224, 224});
      },
      ErrorKind::kConfig, {"dim must be a multiple of heads = 7", "768"}));
  bad = b16;
  bad.depth = 0;
  EXPECT_TRUE(throws_error(
      [&] {
        build(bad, {1, 3, 224, 224});
      },
      ErrorKind::kConfig, {"depth must be 1 and up", "got 0"}));
  EXPECT_TRUE(throws_error(
      [&] {
        build(b16, {1, 3, 224, 224}, {{3, 3}, false});
      },
      ErrorKind::kConfig, {"features must be ascending blocks of 0..11", "got 3 at position 1"}));
  EXPECT_TRUE(throws_error(
      [&] {
        build(b16, {1, 3, 224, 224}, {{12}, false});
      },
      ErrorKind::kConfig, {"got 12 at position 0"}));
}

}  // namespace
}  // namespace permafrost
