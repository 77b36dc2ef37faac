// The language model against transformers' OPT, in fp64: the goldens of OPT, as texts that a run would give it; and
// with adaptors in its layers.
#include "models/language_model.h"

#include <gtest/gtest.h>

#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class LanguageModelGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(LanguageModelGolden, LossLogitsAndAllGradients) {
  const Golden golden(GetParam() + ".safetensors"), weights(GetParam() + "_weights.safetensors");
  const OptConfig opt = opt_config_of(golden);
  const LanguageModel model({opt, 0});
  expect_text_golden({model, golden, [&](const GraphRunner& runner) { load_params(runner, "text.", weights); },
                      opt_path(opt, golden.shape("input_ids")[1]), "text."});
}

INSTANTIATE_TEST_SUITE_P(Models, LanguageModelGolden, ::testing::Values("opt_pre", "opt_post", "opt_odd"));

class AdaptedLanguageModel : public ::testing::TestWithParam<std::string> {
 protected:
  void expect(void (*check)(const TextGolden&)) const {
    const Golden golden(GetParam() + ".safetensors"), adaptors(GetParam() + "_adapter.safetensors"),
        text(golden.text("text") + "_weights.safetensors");
    const LanguageModelConfig config{opt_config_of(text), 0, adaptor_config_of(golden)};
    const LanguageModel model(config);
    const PathLength adapted = config.text.layers * PathLength{3 * config.text.hidden, 5};
    check({model, golden,
           [&](const GraphRunner& runner) {
             load_params(runner, "text.", text);
             load_params(runner, "", adaptors);
           },
           opt_path(config.text, golden.shape("input_ids")[1]) + adapted});
  }
};

TEST_P(AdaptedLanguageModel, LossLogitsAndGradientsOfTheAdaptors) { expect(expect_text_golden); }
TEST_P(AdaptedLanguageModel, NarrowDtypesAreCloseWithinTheirRoundings) { expect(expect_text_golden_narrow); }

TEST_P(AdaptedLanguageModel, TrainsExactlyWhatItsFileHolds) {
  const Golden golden(GetParam() + ".safetensors"), text(golden.text("text") + "_weights.safetensors");
  const LanguageModel model({opt_config_of(text), 0, adaptor_config_of(golden)});
  expect_trains_what_is_in(GetParam() + "_adapter.safetensors", model);
}

INSTANTIATE_TEST_SUITE_P(Models, AdaptedLanguageModel,
                         ::testing::Values("adapted_mlp_normal", "adapted_attn_scaled_parallel"));

TEST(LanguageModel, RefusesWhatDoesNotFit) {
  OptConfig opt;
  opt.vocab = 11;
  opt.layers = 1;
  opt.hidden = opt.word_embed_proj_dim = opt.ffn = 8;
  opt.heads = 3;
  EXPECT_TRUE(throws_error([&] { LanguageModel({opt, 0}); }, ErrorKind::kConfig, {"multiple of heads = 3"}));
  opt.heads = 2;
  EXPECT_TRUE(throws_error([&] { LanguageModel({opt, 1}); }, ErrorKind::kConfig, {"label_smoothing", "got 1"}));
  EXPECT_TRUE(throws_error(
      [&] {
        LanguageModel({opt, 0, AdaptorConfig{AdaptorKind::kNormal, 9}}).build(DType::kF32, {2, 4, false});
      },
      ErrorKind::kConfig, {"adaptor: factor must be 1 to the width 8; got 9", "layers.0.fc2.1"}));
  const LanguageModel model({opt, 0});
  const Graph graph = model.build(DType::kF32, {2, 4, false});
  EXPECT_LT(graph.find_value("images"), 0);
  const GraphRunner runner(graph, std::vector<bool>(graph.params().size(), false));
  const InputTensors inputs = [&](std::string_view name) { return runner.input(std::string(name)); };
  ModelBatch batch;
  batch.text = TextBatch::of({{2, 3, 4, 5, 6}, {2, 3}}, 2, kOptPadId);
  EXPECT_TRUE(throws_error([&] { model.fill(batch, inputs); }, ErrorKind::kInvalidArgument,
                           {"a batch must fit (2, 4); got (2, 5)"}));
  batch.text = TextBatch::of({{2, 3}}, 1, kOptPadId);
  EXPECT_TRUE(throws_error([&] { model.fill(batch, inputs); }, ErrorKind::kInvalidArgument, {"got (1, 2)"}));
  EXPECT_TRUE(throws_error([&] { model.fill(batch, [](std::string_view) { return Tensor(); }); },
                           ErrorKind::kShapeMismatch, {"input_ids must be (B, T) i32"}));
  batch.text = TextBatch::of({{2, 3}}, 2, kOptPadId);
  const OwnedTensor floats = filled_tensor(DType::kF32, {2, 4}, 0), few = filled_tensor(DType::kI32, {2, 2}, 0);
  const auto fill_with = [&](std::string_view other, const Tensor& tensor) {
    model.fill(batch, [&](std::string_view name) { return name == other ? tensor : inputs(name); });
  };
  EXPECT_TRUE(throws_error([&] { fill_with("input_ids", floats); }, ErrorKind::kShapeMismatch,
                           {"language_model inputs: input_ids must be (2, 4) i32; got (2, 4) f32"}));
  EXPECT_TRUE(throws_error([&] { fill_with("position_ids", few); }, ErrorKind::kShapeMismatch,
                           {"language_model inputs: position_ids must be (2, 4) i32; got (2, 2) i32"}));
  EXPECT_TRUE(throws_error([&] { fill_with("labels", few); }, ErrorKind::kShapeMismatch,
                           {"language_model inputs: labels must be (2, 3) i32; got (2, 2) i32"}));
  EXPECT_TRUE(throws_error([&] { fill_with("row_weight", few); }, ErrorKind::kShapeMismatch,
                           {"language_model inputs: row_weight must be (2, 3) f32"}));
  EXPECT_TRUE(throws_error([&] { fill_with("lengths", few); }, ErrorKind::kShapeMismatch,
                           {"language_model inputs: lengths must be (2) i32; got (2, 2) i32"}));
}

}  // namespace
}  // namespace permafrost
