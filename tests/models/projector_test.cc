// The projector against our fp64 composition of timm and transformers (tests/goldens/projector.py), which transformers
// agrees with where it takes embeddings.
#include "models/projector.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "models/weight_names.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

struct ProjectorGolden {
  Golden golden, projector, vision, text;
  ProjectorConfig config;

  explicit ProjectorGolden(const std::string& name)
      : golden(name + ".safetensors"),
        projector(name + "_adapter.safetensors"),
        vision(golden.text("vision") + "_weights.safetensors"),
        text(golden.text("text") + "_weights.safetensors") {
    config.vision = vit_config_of(vision);
    config.text = opt_config_of(text);
    config.kind = golden.text("mlp") == "true" ? ProjectorConfig::Kind::kMlp : ProjectorConfig::Kind::kLinear;
  }
  void load(const GraphRunner& runner) const {
    load_params(runner, "vision.", vision);
    load_params(runner, "text.", text);
    load_params(runner, "", projector);
  }
  void expect(void (*check)(const TextGolden&)) const {
    const ProjectorModel model(config);
    const PathLength projection{config.vision.dim + config.text.hidden, 2};
    check({model, golden, [this](const GraphRunner& runner) { load(runner); },
           vit_path(config.vision) + projection +
               opt_path(config.text, config.image_tokens() + golden.shape("input_ids")[1])});
  }
};

class Projector : public ::testing::TestWithParam<std::string> {};

TEST_P(Projector, LossValuesAndGradients) { ProjectorGolden(GetParam()).expect(expect_text_golden); }
TEST_P(Projector, NarrowDtypesAreCloseWithinTheirRoundings) {
  ProjectorGolden(GetParam()).expect(expect_text_golden_narrow);
}

TEST_P(Projector, TrainsExactlyWhatItsFileHolds) {
  const ProjectorGolden of(GetParam());
  const ProjectorModel model(of.config);
  expect_trains_what_is_in(GetParam() + "_adapter.safetensors", model);
  const Graph graph = model.build(DType::kF32, {2, 5, false});
  // Files of the backbones are those of other models.
  for (const auto& [backbone, stored] : {std::pair(vision_weights(graph), of.golden.text("vision")),
                                         std::pair(text_weights(graph), of.golden.text("text"))}) {
    const WeightSource file = WeightSource::open(golden_path(stored + "_weights.safetensors"));
    EXPECT_EQ(match_parameters(backbone.required, file, backbone.rules).matches.size(), backbone.params.size());
  }
}

TEST_P(Projector, PaddingAndNeighboursChangeNoLoss) {
  const ProjectorGolden of(GetParam());
  const ProjectorModel model(of.config);
  const TextBatch whole = texts_in(of.golden);
  const auto image_values = of.golden.values("images");
  std::vector<float> images(image_values.begin(), image_values.end());
  const size_t size = images.size() / 3;
  const auto loss_of_last = [&](int64_t tokens, int64_t bucket) {
    ModelBatch batch;
    batch.text.batch = 1;
    batch.text.tokens = tokens;
    const auto begin = whole.ids.begin() + 2 * whole.tokens;
    batch.text.ids.assign(begin, begin + tokens);
    batch.text.lengths = {whole.lengths[2]};
    label_all(batch.text);
    batch.images = std::span(images).subspan(2 * size);
    batch.pad_id = kOptPadId;
    batch.row_weight = 1;
    const Graph graph = model.build(DType::kF32, {1, bucket, false});
    GraphRunner runner(graph, resolve_freezing(graph, model.freezing()));
    of.load(runner);
    model.fill(batch, [&](std::string_view name) { return runner.input(std::string(name)); });
    return runner.run();
  };
  const int64_t own = whole.lengths[2];
  ASSERT_LT(own, whole.tokens);
  EXPECT_EQ(loss_of_last(own, whole.tokens), loss_of_last(whole.tokens, whole.tokens));
  const double loss = loss_of_last(own, own);
  EXPECT_NEAR(loss_of_last(own, whole.tokens), loss,
              model_tolerance(DType::kF32, opt_path(of.config.text, whole.tokens), {loss}).absolute);
}

INSTANTIATE_TEST_SUITE_P(Models, Projector, ::testing::Values("projector_linear", "projector_mlp"));

ProjectorConfig small_projector() {
  ProjectorConfig c;
  c.vision = small_epalm().vision;
  c.text = small_epalm().text;
  return c;
}

TEST(ProjectorModel, CountsOfPublishedSizes) {
  const auto trained = [](const ProjectorConfig& config) {
    const ProjectorModel model(config);
    const Graph graph = model.build(DType::kBF16, {1, 3, false});
    const std::vector<bool> trainable = resolve_freezing(graph, model.freezing());
    int64_t count = 0;
    for (size_t p = 0; p < trainable.size(); ++p) count += trainable[p] ? graph.params()[p].shape.elements() : 0;
    return count;
  };
  ProjectorConfig config;
  config.vision = VitConfig::l16();
  config.text = OptConfig::of(OptSize::k1_3B);
  EXPECT_EQ(config.image_tokens(), 196);
  EXPECT_EQ(trained(config), 1024 * 2048 + 2048);
  config.kind = ProjectorConfig::Kind::kMlp;
  EXPECT_EQ(trained(config), 1024 * 2048 + 2048 + 2048 * 2048 + 2048);
  config.kind = ProjectorConfig::Kind::kLinear;
  config.text = OptConfig::of(OptSize::k350M);
  EXPECT_EQ(trained(config), 1024 * 1024 + 1024) << "to the hidden width, behind project_in";
}

TEST(ProjectorModel, PositionsCountImageTokensAndPaddingHasNone) {
  const ProjectorConfig config = small_projector();
  const ProjectorModel model(config);
  ASSERT_EQ(config.image_tokens(), 4);
  const Graph graph = model.build(DType::kF32, {2, 3, true});
  const GraphRunner runner(graph, std::vector<bool>(graph.params().size(), false));
  const std::vector<float> images(static_cast<size_t>(runner.input("images").elements()), 0.5f);
  ModelBatch batch;
  batch.images = images;
  batch.text = TextBatch::of({{2, 7, 9}, {2}}, 2, kOptPadId);
  batch.pad_id = kOptPadId;
  batch.row_weight = 0.5f;
  model.fill(batch, [&](std::string_view name) { return runner.input(std::string(name)); });
  EXPECT_EQ(values_of(runner.input("position_ids")), (std::vector<double>{2, 3, 4, 5, 6, 7, 8, 2, 3, 4, 5, 6, 1, 1}));
  EXPECT_EQ(values_of(runner.input("lengths")), (std::vector<double>{7, 5}));
  EXPECT_EQ(values_of(runner.input("labels")),
            (std::vector<double>{-100, -100, -100, -100, 7, 9, -100, -100, -100, -100, -100, -100, -100, -100}));
  EXPECT_EQ(values_of(runner.input("row_weight")), (std::vector<double>{0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(ProjectorModel, RefusesWhatDoesNotFit) {
  ProjectorConfig config = small_projector();
  config.text.max_positions = 4;
  EXPECT_TRUE(throws_error([&] { ProjectorModel{config}; }, ErrorKind::kConfig,
                           {"projector: the 4 patches of an image must leave room for a text in 4 positions"}));
  config.text.max_positions = 8;
  const ProjectorModel model(config);
  EXPECT_NO_THROW(model.build(DType::kF32, {1, 4, false}));
  EXPECT_TRUE(throws_error(
      [&] {
        model.build(DType::kF32, {1, 5, false});
      },
      ErrorKind::kConfig, {"opt: a text must fit 8 positions; got 9 tokens, 4 of them before the text"}));
  config.label_smoothing = 1;
  EXPECT_TRUE(throws_error([&] { ProjectorModel{config}; }, ErrorKind::kConfig, {"projector: label_smoothing"}));

  const Graph graph = model.build(DType::kF32, {1, 3, false});
  const GraphRunner runner(graph, std::vector<bool>(graph.params().size(), false));
  const InputTensors inputs = [&](std::string_view name) { return runner.input(std::string(name)); };
  const std::vector<float> images(static_cast<size_t>(runner.input("images").elements()), 0);
  ModelBatch batch;
  batch.text = TextBatch::of({{2, 3}}, 1, kOptPadId);
  EXPECT_TRUE(throws_error([&] { model.fill(batch, inputs); }, ErrorKind::kInvalidArgument,
                           {"projector inputs: images must be", "got 0 numbers"}));
  batch.images = images;
  EXPECT_NO_THROW(model.fill(batch, inputs));
  const OwnedTensor few = filled_tensor(DType::kI32, {1, 3}, 0);
  EXPECT_TRUE(throws_error(
      [&] { model.fill(batch, [&](std::string_view name) { return name == "position_ids" ? few : inputs(name); }); },
      ErrorKind::kShapeMismatch, {"projector inputs: position_ids must be (1, 7) i32; got (1, 3) i32"}));
}

}  // namespace
}  // namespace permafrost
