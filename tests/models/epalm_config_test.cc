#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "models/epalm/epalm.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

EpalmConfig windowed(int64_t start, int64_t end, int64_t features) {
  EpalmConfig config;
  config.start = start;
  config.end = end;
  config.features = features;
  return config;
}

/// The feature before each of the layers 0 .. layers-1; -1 = none.
std::vector<int64_t> features_of(const EpalmConfig& config, int64_t layers) {
  std::vector<int64_t> result;
  for (int64_t i = 0; i < layers; ++i) result.push_back(config.feature_of_layer(i).value_or(-1));
  return result;
}

TEST(EpalmWindow, PublishedTables) {
  std::vector<int64_t> of32(19, -1), of24(11, -1);
  for (int64_t j = 0; j < 6; ++j) {
    of32.insert(of32.end(), {j, j});
    of24.insert(of24.end(), {j, j});
  }
  of32.push_back(-1);
  of24.push_back(-1);
  EXPECT_EQ(features_of(windowed(19, 31, 6), 32), of32);
  EXPECT_EQ(features_of(windowed(11, 23, 6), 24), of24);
}

TEST(EpalmWindow, UnevenOnes) {
  EXPECT_EQ(features_of(windowed(1, 8, 3), 8), (std::vector<int64_t>{-1, 0, 0, 1, 1, 2, 2, 2}));
  EXPECT_EQ(features_of(windowed(3, 5, 4), 6), (std::vector<int64_t>{-1, -1, -1, 0, 1, -1}));
  EXPECT_EQ(features_of(windowed(2, 5, 3), 6), (std::vector<int64_t>{-1, -1, 0, 1, 2, -1}));
  EXPECT_EQ(features_of(windowed(1, 4, 1), 5), (std::vector<int64_t>{-1, 0, 0, 0, -1}));
  EXPECT_EQ(features_of(windowed(1, 6, 3), 6), (std::vector<int64_t>{-1, 0, 1, 2, 2, 2}));
}

TEST(EpalmConfigCheck, NamesWhatDoesNotFit) {
  EXPECT_NO_THROW(windowed(5, 11, 6).check());
  EXPECT_TRUE(throws_error([] { windowed(5, 13, 6).check(); }, ErrorKind::kConfig,
                           {"window must lie in the 12 text layers", "5 to 13"}));
  EXPECT_TRUE(throws_error([] { windowed(5, 5, 6).check(); }, ErrorKind::kConfig, {"start < end", "5 to 5"}));
  EXPECT_TRUE(throws_error([] { windowed(-1, 5, 6).check(); }, ErrorKind::kConfig, {"-1 to 5"}));
  EXPECT_TRUE(throws_error([] { windowed(5, 11, 13).check(); }, ErrorKind::kConfig,
                           {"features must be 1 to the vision model's 12 blocks", "got 13"}));
  EpalmConfig config = windowed(5, 11, 6);
  config.prompt_length = 0;
  EXPECT_TRUE(throws_error([&] { config.check(); }, ErrorKind::kConfig, {"prompt_length must be 1 and up", "got 0"}));
  config = windowed(5, 11, 6);
  config.frozen_dropout = true;
  EXPECT_NO_THROW(config.check());
  config.text.dropout = 0;
  EXPECT_TRUE(throws_error([&] { config.check(); }, ErrorKind::kConfig, {"frozen_dropout needs a dropout above 0"}));
  config = windowed(5, 11, 6);
  config.label_smoothing = 1;
  EXPECT_TRUE(throws_error([&] { config.check(); }, ErrorKind::kConfig, {"label_smoothing"}));
  EXPECT_TRUE(throws_error(
      [] {
        build_epalm(windowed(5, 11, 6), DType::kF32, {0, 3, false});
      },
      ErrorKind::kConfig, {"(0, 3)"}));
  config = windowed(5, 11, 6);
  config.adaptor = AdaptorConfig{AdaptorKind::kNormal, 1000, false};
  EXPECT_TRUE(throws_error(
      [&] {
        build_epalm(config, DType::kF32, {1, 3, false});
      },
      ErrorKind::kConfig, {"adaptor: factor must be 1 to the width 768", "1000", "layers.0.fc2.1"}));
}

TEST(EpalmGraph, UnitsAndOwners) {
  EpalmConfig config = windowed(5, 11, 6);
  config.shared_connector = true;
  const Graph graph = build_epalm(config, DType::kF32, {2, 7, false});
  std::map<std::string, int> uses;
  for (const UnitInfo& unit : graph.units()) ++uses[unit.name];
  for (const auto& [name, count] : uses) EXPECT_EQ(count, 1) << name;
  std::vector<bool> used(graph.units().size(), false);
  for (const OpInfo& op : graph.ops()) used[static_cast<size_t>(op.unit)] = true;
  for (size_t u = 0; u < used.size(); ++u) EXPECT_TRUE(used[u]) << graph.units()[u].name << " does nothing";
  const auto owner = [&](const std::string& param) {
    const int p = graph.find_param(param);
    return p < 0 ? "none" : graph.units()[static_cast<size_t>(graph.params()[static_cast<size_t>(p)].unit)].name;
  };
  EXPECT_EQ(owner("vision.norm.weight"), "vision.norm");
  EXPECT_EQ(owner("vision.pos_embed"), "vision.embed");
  EXPECT_EQ(owner("connector.0.weight"), "connector");
  EXPECT_EQ(owner("connector.1.weight"), "none");
  EXPECT_EQ(owner("prompt_module.prefix_embedding.3.bias"), "prompt");
  EXPECT_EQ(owner("text.model.decoder.embed_tokens.weight"), "text.embed");  // the head borrows it
  EXPECT_EQ(owner("text.model.decoder.layers.3.fc1.weight"), "text.layers.3");
  EXPECT_EQ(owner("text.model.decoder.final_layer_norm.weight"), "text.final");
}

TEST(EpalmGraph, LogitsOfPredictingRowsOrOfAll) {
  EpalmConfig config = windowed(5, 11, 6);
  const auto shape_of = [](const Graph& graph, const std::string& name) {
    return graph.values()[static_cast<size_t>(graph.find_value(name))].spec;
  };
  const Graph training = build_epalm(config, DType::kBF16, {2, 7, false});
  EXPECT_EQ(training.find_value("logits"), -1) << "training needs none";
  EXPECT_EQ(shape_of(training, "row_loss"), (TensorSpec{{2 * 6}, DType::kF32}));
  const Graph everything = build_epalm(config, DType::kBF16, {2, 7, true});
  EXPECT_EQ(shape_of(everything, "logits"), (TensorSpec{{2, 18, 50272}, DType::kF32}));
  EXPECT_EQ(shape_of(everything, "text.layers.4.out"), (TensorSpec{{2, 17, 768}, DType::kBF16}));
  EXPECT_EQ(shape_of(everything, "text.layers.5.out"), (TensorSpec{{2, 18, 768}, DType::kBF16}));
  EXPECT_EQ(shape_of(everything, "features.5"), (TensorSpec{{2, 768}, DType::kBF16}));
  EXPECT_EQ(shape_of(everything, "vision.blocks.11.out"), (TensorSpec{{2, 197, 768}, DType::kBF16}));
  EXPECT_EQ(shape_of(everything, "loss"), (TensorSpec{{1}, DType::kF64}));
}

TEST(EpalmGraph, InputsFollowTheConfiguration) {
  EpalmConfig config = windowed(5, 11, 6);
  const auto has = [](const EpalmConfig& c, const std::string& name) {
    return build_epalm(c, DType::kF32, {2, 7, false}).find_value(name) >= 0;
  };
  EXPECT_FALSE(has(config, "random_address"));
  EXPECT_TRUE(has(config, "open_lengths"));
  config.frozen_dropout = true;
  EXPECT_TRUE(has(config, "random_address"));
  config.vis_row = EpalmConfig::VisRow::kCausal;
  EXPECT_FALSE(has(config, "open_lengths"));
}

TEST(EpalmInitialisers, AsPublished) {
  EpalmConfig config = windowed(5, 11, 6);
  config.adaptor = AdaptorConfig{AdaptorKind::kScaledParallel, 4, true};
  const Graph graph = build_epalm(config, DType::kF32, {1, 3, false});
  const auto start = [&](const std::string& name) {
    const int p = graph.find_param(name);
    return p < 0 ? "none" : to_string(graph.params()[static_cast<size_t>(p)].initializer);
  };
  const std::string by768 = to_string(Initializer::uniform(static_cast<float>(1 / std::sqrt(768.0))));
  EXPECT_EQ(start("connector.2.weight"), by768);
  EXPECT_EQ(start("connector.2.bias"), by768);
  EXPECT_EQ(start("prompt_module.prefix_embedding.0.weight"), to_string(Initializer::normal(1)));
  EXPECT_EQ(start("prompt_module.prefix_embedding.1.bias"), by768);
  EXPECT_EQ(start("model_text.model.decoder.layers.4.fc2.adapter.1.weight"),
            to_string(Initializer::normal(1e-3f, 2e-3f)));
  EXPECT_EQ(start("model_text.model.decoder.layers.4.fc2.adapter.3.bias"),
            to_string(Initializer::normal(1e-3f, 2e-3f)));
  EXPECT_EQ(start("model_text.model.decoder.layers.4.fc2.adapter.0.weight"), to_string(Initializer::ones()));
  EXPECT_EQ(start("model_text.model.decoder.layers.4.fc2.adapter_scale"), to_string(Initializer::ones()));
}

}  // namespace
}  // namespace permafrost
