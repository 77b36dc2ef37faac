// The language model against transformers' OPT, in fp64: the goldens of OPT, as texts that a run would give it.
#include "models/language_model.h"

#include <gtest/gtest.h>

#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

TextBatch texts_of(const Golden& golden) {
  TextBatch text;
  const Shape shape = golden.shape("input_ids");
  text.batch = shape[0];
  text.tokens = shape[1];
  for (double id : golden.values("input_ids")) text.ids.push_back(static_cast<int32_t>(id));
  text.lengths = lengths_in(golden);
  label_all(text);
  return text;
}

class LanguageModelGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(LanguageModelGolden, LossLogitsAndAllGradients) {
  const Golden golden(GetParam() + ".safetensors"), weights(GetParam() + "_weights.safetensors");
  const OptConfig opt = opt_config_of(golden);
  const LanguageModel model({opt, 0});
  ModelBatch batch;
  batch.text = texts_of(golden);
  batch.pad_id = kOptPadId;
  batch.row_weight = LossWeighting{LossWeighting::Kind::kTokenMean, 1}.row_weight(count_loss(batch.text));
  const Shape shape = golden.shape("input_ids");
  const PathLength path = opt_path(opt, shape[1]), backward = gradient_path(path, shape.elements());
  struct Case {
    int64_t tokens;
    bool all_values;
  };
  // As it is, all positions, and in a longer bucket.
  for (const Case& c : {Case{shape[1], false}, Case{shape[1], true}, Case{shape[1] + 3, false}}) {
    const Graph graph = model.build(DType::kF32, {shape[0], c.tokens, c.all_values});
    GraphRunner runner(graph, resolve_freezing(graph, model.freezing()));
    load_params(runner, "text.", weights);
    model.fill(batch, [&](std::string_view name) { return runner.input(std::string(name)); });
    const double loss = runner.run(), want_loss = golden.values("loss")[0];
    EXPECT_NEAR(loss, want_loss, model_tolerance(DType::kF32, path, {want_loss}).absolute) << c.tokens;
    EXPECT_EQ(runner.value("logits").shape(), Shape({shape[0], c.all_values ? c.tokens : c.tokens - 1, opt.vocab}));
    if (c.all_values) {
      const auto want = golden.values("logits");
      EXPECT_TRUE(all_close(runner.value("logits"), want, model_tolerance(DType::kF32, path, want)));
    }
    for (const ParamInfo& info : graph.params()) {
      const std::string stored = "grad:" + info.name.substr(5);
      const auto want = golden.values(stored);
      // The gradient of a bias of keys is a sum that cancels: see opt_golden_test.cc.
      const bool cancels = stored.ends_with("k_proj.bias");
      const auto scale = cancels ? golden.values(stored.substr(0, stored.size() - 4) + "weight") : want;
      EXPECT_TRUE(all_close(runner.gradient(info.name), want, model_tolerance(DType::kF32, backward, scale)))
          << info.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LanguageModelGolden, ::testing::Values("opt_pre", "opt_post", "opt_odd"));

TEST(LanguageModel, RefusesWhatDoesNotFit) {
  OptConfig opt;
  opt.vocab = 11;
  opt.layers = 1;
  opt.hidden = opt.word_embed_proj_dim = opt.ffn = 8;
  opt.heads = 3;
  EXPECT_TRUE(throws_error([&] { LanguageModel({opt, 0}); }, ErrorKind::kConfig, {"multiple of heads = 3"}));
  opt.heads = 2;
  EXPECT_TRUE(throws_error([&] { LanguageModel({opt, 1}); }, ErrorKind::kConfig, {"label_smoothing", "got 1"}));
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
