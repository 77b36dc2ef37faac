// The vision classifier against timm's with several choices, in fp64 (tests/goldens/README.md).
#include "models/vision_classifier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

VisionClassifierConfig classifier_of(const Golden& golden) {
  VisionClassifierConfig config;
  config.vision = vit_config_of(golden);
  config.labels = static_cast<int64_t>(golden.number("labels"));
  config.classes = static_cast<int64_t>(golden.number("classes"));
  return config;
}

std::vector<int32_t> classes_of(const Golden& golden) {
  std::vector<int32_t> classes;
  for (double label : golden.values("labels")) classes.push_back(static_cast<int32_t>(label));
  return classes;
}

/// Everything that a model is given, from a golden.
struct ClassifierBatch {
  explicit ClassifierBatch(const Golden& golden) : classes(classes_of(golden)) {
    for (double pixel : golden.values("images")) images.push_back(static_cast<float>(pixel));
    batch.images = images;
    batch.classes = classes;
    const auto given = std::ranges::count_if(classes, [](int32_t c) { return c != kIgnoredLabel; });
    batch.row_weight = 1.0f / static_cast<float>(given);
  }
  void fill(const Model& model, const GraphRunner& runner) const {
    model.fill(batch, [&](std::string_view name) { return runner.input(std::string(name)); });
  }
  std::vector<float> images;
  std::vector<int32_t> classes;
  ModelBatch batch;
};

/// Labels whose logit is the largest; logits (B, labels, classes).
int64_t correct_labels(const Tensor& logits, const std::vector<int32_t>& labels) {
  const int64_t choices = logits.dim(2);
  int64_t correct = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    const float* row = logits.data<float>() + static_cast<int64_t>(i) * choices;
    correct += std::max_element(row, row + choices) - row == labels[i];
  }
  return correct;
}

TEST(VisionClassifier, LossLogitsAndAllGradients) {
  const Golden golden("classifier_small.safetensors"), weights("classifier_small_weights.safetensors");
  const VisionClassifierConfig config = classifier_of(golden);
  const VisionClassifier model(config);
  const int64_t batch = golden.shape("images")[0];
  for (const bool all_values : {false, true}) {
    const Graph graph = model.build(DType::kF32, {batch, 1, all_values});
    GraphRunner runner(graph, resolve_freezing(graph, model.freezing()));
    load_params(runner, "vision.", weights);
    ClassifierBatch(golden).fill(model, runner);
    const double loss = runner.run(), want_loss = golden.values("loss")[0];
    const PathLength path = vit_path(config.vision) + PathLength{config.vision.dim + config.classes, 2};
    EXPECT_NEAR(loss, want_loss, model_tolerance(DType::kF32, path, {want_loss}).absolute);
    const auto want = golden.values("logits");
    EXPECT_EQ(runner.value("logits").shape(), golden.shape("logits"));
    EXPECT_TRUE(all_close(runner.value("logits"), want, model_tolerance(DType::kF32, path, want)));
    EXPECT_EQ(correct_labels(runner.value("logits"), classes_of(golden)), golden.values("correct")[0]);
    int64_t compared = 0;
    for (const ParamInfo& info : graph.params()) {
      const auto gradient = golden.values("grad:" + info.name.substr(7));
      const PathLength backward = gradient_path(path, batch * config.vision.tokens());
      EXPECT_TRUE(all_close(runner.gradient(info.name), gradient, model_tolerance(DType::kF32, backward, gradient)))
          << info.name;
      ++compared;
    }
    EXPECT_EQ(compared, 4 + 12 + 2 + 2) << "embedding, a block, norm, head";
  }
}

TEST(VisionClassifier, HasOneHeadUnderTimmsNameAndCounts) {
  VisionClassifierConfig config;
  config.vision = {48, 3, 8, 128, 6, 4, 512, 1e-6f};
  config.labels = 7;
  config.classes = 9;
  const Graph graph = build_vision_classifier(config, DType::kBF16, {4, 1, false});
  const int head = graph.find_param("vision.head.weight");
  ASSERT_GE(head, 0);
  EXPECT_EQ(graph.params()[static_cast<size_t>(head)].shape, Shape({63, 128}));
  EXPECT_EQ(graph.spec(Value{graph.find_value("logits")}), (TensorSpec{{4, 7, 9}, DType::kF32}));
  int64_t total = 0;
  for (const ParamInfo& info : graph.params()) {
    EXPECT_TRUE(info.name.starts_with("vision.")) << info.name;
    total += info.shape.elements();
  }
  const int64_t d = 128, block = 4 * d + 3 * d * d + 3 * d + d * d + d + 2 * d * 512 + 512 + d;
  EXPECT_EQ(total, 3 * 64 * d + d + d + 37 * d + 6 * block + 2 * d + 63 * d + 63);
}

/// A classifier of `depth` blocks, `blocks` of them supervised, with the same parameters whatever it is asked for.
struct SupervisedRun {
  explicit SupervisedRun(int64_t depth, int64_t blocks, bool all_values = false)
      : model(config_of(depth, blocks)),
        graph(model.build(DType::kF32, {3, 1, all_values})),
        runner(graph, resolve_freezing(graph, model.freezing())) {
    for (const ParamInfo& info : graph.params()) {
      uint64_t seed = 17;  // of its name: other depths have the same
      for (const char c : info.name) seed = seed * 31 + static_cast<uint8_t>(c);
      const OwnedTensor values = random_tensor(DType::kF32, info.shape, seed, 0.3);
      std::memcpy(runner.param(info.name).raw(), values.view().raw(), static_cast<size_t>(values.view().bytes()));
    }
    const OwnedTensor pixels = random_tensor(DType::kF32, Shape{3, 3, 16, 16}, 5);
    const std::vector<int32_t> classes{0, 2, kIgnoredLabel, 1, 3, 3};
    ModelBatch batch;
    batch.images = {pixels.view().data<float>(), static_cast<size_t>(pixels.view().elements())};
    batch.classes = classes;
    batch.row_weight = 0.2f;
    model.fill(batch, [&](std::string_view name) { return runner.input(std::string(name)); });
    loss = runner.run();
  }
  static VisionClassifierConfig config_of(int64_t depth, int64_t blocks) {
    VisionClassifierConfig config;
    config.vision = {16, 3, 8, 12, depth, 3, 24, 1e-6f};
    config.labels = 2;
    config.classes = 4;
    config.supervised_blocks = blocks;
    config.label_smoothing = 0.1f;
    return config;
  }
  VisionClassifier model;
  Graph graph;
  GraphRunner runner;
  double loss = 0;
};

/// The heads read the class token of block j as in a model that ends there, so the reference is the mean of such
/// models.
TEST(VisionClassifier, LossOfSeveralBlocksIsTheMeanOfThoseOfEach) {
  for (const bool all_values : {false, true}) {
    const SupervisedRun several(3, 2, all_values);
    const SupervisedRun shallow(2, 1), deep(3, 1);
    ASSERT_GT(std::abs(shallow.loss - deep.loss), 1e-3) << "or a mean could not be told from one of them";
    const PathLength path = vit_path(SupervisedRun::config_of(3, 2).vision) + PathLength{12 + 4, 2};
    const double mean = (shallow.loss + deep.loss) / 2;
    EXPECT_NEAR(several.loss, mean, model_tolerance(DType::kF32, path, {mean}).absolute);
    int64_t shared = 0;
    for (const ParamInfo& info : several.graph.params()) {
      const Tensor from_deep = deep.runner.gradient(info.name);
      const bool in_both = shallow.graph.find_param(info.name) >= 0;
      std::vector<double> want;
      for (int64_t i = 0; i < from_deep.elements(); ++i) {
        double sum = static_cast<double>(from_deep.data<float>()[i]);
        if (in_both) sum += static_cast<double>(shallow.runner.gradient(info.name).data<float>()[i]);
        want.push_back(sum / 2);
      }
      shared += in_both ? 1 : 0;
      EXPECT_TRUE(all_close(several.runner.gradient(info.name), want,
                            model_tolerance(DType::kF32, gradient_path(path, 3 * 5), want)))
          << info.name;
    }
    EXPECT_EQ(shared, 4 + 2 * 12 + 2 + 2) << "all but the third block";
    // Per image the last block's logits come last.
    const Tensor first = shallow.runner.value("logits"), last = deep.runner.value("logits");
    std::vector<double> want;
    for (int64_t row = 0; row < 3; ++row)
      for (const Tensor& of_block : {first, last})
        for (int64_t i = 0; i < 8; ++i) want.push_back(static_cast<double>(of_block.data<float>()[row * 8 + i]));
    EXPECT_EQ(several.runner.value("logits").shape(), Shape({3, 4, 4}));
    EXPECT_TRUE(all_close(several.runner.value("logits"), want, model_tolerance(DType::kF32, path, want)));
  }
}

TEST(VisionClassifier, HasOneUnitForItsHead) {
  for (const int64_t blocks : {1, 3}) {
    const Graph graph = SupervisedRun(3, blocks).model.build(DType::kF32, {1, 1, false});
    EXPECT_EQ(std::ranges::count_if(graph.units(), [](const UnitInfo& unit) { return unit.name == "vision.head"; }), 1);
  }
}

TEST(VisionClassifier, RefusesMoreSupervisedBlocksThanItHas) {
  for (const int64_t blocks : {0, 4})
    EXPECT_TRUE(throws_error([&] { VisionClassifier{SupervisedRun::config_of(3, blocks)}; }, ErrorKind::kConfig,
                             {concat("supervised_blocks must be 1 to the vision model's 3 blocks; got ", blocks)}));
}

TEST(VisionClassifier, RefusesWhatDoesNotFit) {
  VisionClassifierConfig config;
  config.vision = {16, 3, 8, 12, 2, 3, 24, 1e-6f};
  config.labels = 0;
  EXPECT_TRUE(throws_error([&] { VisionClassifier{config}; }, ErrorKind::kConfig, {"labels must be 1 and up; got 0"}));
  config.labels = 2;
  config.classes = 1;
  EXPECT_TRUE(throws_error([&] { VisionClassifier{config}; }, ErrorKind::kConfig, {"classes must be 2 and up; got 1"}));
  config.classes = 3;
  config.label_smoothing = 1;
  EXPECT_TRUE(throws_error([&] { VisionClassifier{config}; }, ErrorKind::kConfig, {"label_smoothing", "got 1"}));
  config.label_smoothing = 0;
  const VisionClassifier model(config);
  const Graph graph = model.build(DType::kF32, {1, 1, false});
  const GraphRunner runner(graph, std::vector<bool>(graph.params().size(), false));
  const InputTensors inputs = [&](std::string_view name) { return runner.input(std::string(name)); };
  const std::vector<float> images(3 * 16 * 16);
  const std::vector<uint64_t> ids{4711};
  ModelBatch batch;
  batch.images = images;
  batch.sample_ids = ids;
  std::vector<int32_t> classes{0, 3};
  batch.classes = classes;
  EXPECT_TRUE(throws_error([&] { model.fill(batch, inputs); }, ErrorKind::kData,
                           {"classes must be 0 to 2", "got 3 as label 1 of sample 4711"}));
  classes = {-1, 0};
  EXPECT_TRUE(throws_error([&] { model.fill(batch, inputs); }, ErrorKind::kData, {"got -1 as label 0 of sample 4711"}));
  batch.classes = std::span(classes).first(1);
  EXPECT_TRUE(
      throws_error([&] { model.fill(batch, inputs); }, ErrorKind::kInvalidArgument, {"classes must be (1, 2)"}));
  batch.classes = classes;
  batch.images = std::span(images).first(3);
  EXPECT_TRUE(
      throws_error([&] { model.fill(batch, inputs); }, ErrorKind::kInvalidArgument, {"images must be", "got 3"}));
}

}  // namespace
}  // namespace permafrost
