#include <gtest/gtest.h>

#include "models/epalm/epalm_model.h"
#include "models/epalm/inputs.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

constexpr int32_t kPadId = 1;

EpalmConfig config_with_prompts(int64_t prompts) {
  EpalmConfig config;
  config.start = 5;
  config.end = 11;
  config.prompt = prompts == 0 ? EpalmConfig::Prompt::kNone : EpalmConfig::Prompt::kTable;
  config.prompt_length = prompts;
  return config;
}

/// Memory of the inputs for (batch, tokens) and `rows` rows of logits.
struct Memory {
  OwnedTensor input_ids, position_ids, before, after, open, labels, weights;
  Memory(int64_t batch, int64_t tokens, int64_t rows)
      : input_ids(filled_tensor(DType::kI32, {batch, tokens}, 0x5A)),
        position_ids(filled_tensor(DType::kI32, {batch, tokens}, 0x5A)),
        before(filled_tensor(DType::kI32, {batch}, 0x5A)),
        after(filled_tensor(DType::kI32, {batch}, 0x5A)),
        open(filled_tensor(DType::kI32, {batch}, 0x5A)),
        labels(filled_tensor(DType::kI32, {batch, rows}, 0x5A)),
        weights(filled_tensor(DType::kF32, {batch, rows}, 0x5A)) {}
  EpalmTextInputs views() const { return {input_ids, position_ids, before, after, open, labels, weights}; }
};

using Numbers = std::vector<double>;

const std::vector<std::vector<int32_t>> kTexts{{2, 10, 11, 2}, {2, 12}};

TEST(EpalmInputs, EverythingForAllRows) {
  const EpalmConfig config = config_with_prompts(2);
  const Memory m(3, 5, 1 + 2 + 5);
  fill_epalm_inputs(config, TextBatch::of(kTexts, 3, kPadId), kPadId, 0.5f, m.views());
  EXPECT_EQ(values_of(m.input_ids), (Numbers{2, 10, 11, 2, 1, 2, 12, 1, 1, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(values_of(m.position_ids), (Numbers{2, 3, 4, 5, 1, 2, 3, 1, 1, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(values_of(m.before), (Numbers{6, 4, 2}));
  EXPECT_EQ(values_of(m.after), (Numbers{7, 5, 3}));
  EXPECT_EQ(values_of(m.open), (Numbers{7, 7, 7}));  // the longest text has 4 tokens, whatever the bucket
  const double i = kIgnoredLabel;
  EXPECT_EQ(values_of(m.labels), (Numbers{i, i, i, 10, 11, 2, i, i, i, i, i, 12, i, i, i, i, i, i, i, i, i, i, i, i}));
  EXPECT_EQ(values_of(m.weights),
            (Numbers{0, 0, 0, .5, .5, .5, 0, 0, 0, 0, 0, .5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(EpalmInputs, EverythingForPredictingRows) {
  EpalmConfig config = config_with_prompts(2);
  config.padding = EpalmConfig::Padding::kClean;
  const Memory m(2, 5, 4);
  fill_epalm_inputs(config, TextBatch::of(kTexts, 2, kPadId), kPadId, 0.5f, m.views());
  const double i = kIgnoredLabel;
  EXPECT_EQ(values_of(m.labels), (Numbers{10, 11, 2, i, 12, i, i, i}));
  EXPECT_EQ(values_of(m.weights), (Numbers{.5, .5, .5, 0, .5, 0, 0, 0}));
  EXPECT_EQ(values_of(m.open), (Numbers{7, 5}));
}

TEST(EpalmInputs, ATextOfOneTokenPredictsNothing) {
  const Memory m(1, 1, 0);
  const TextBatch batch = TextBatch::of({{2}}, 1, kPadId);
  EXPECT_EQ(count_loss(batch).tokens, 0);
  fill_epalm_inputs(config_with_prompts(0), batch, kPadId, 1, m.views());
  EXPECT_EQ(values_of(m.after), Numbers{2});
}

TEST(EpalmInputs, AnswersBeginBehindTheLastMark) {
  TextBatch batch = TextBatch::of({{2, 7, 60, 8, 60, 9, 2}, {2, 60, 2}}, 3, kPadId);
  label_answers(batch, 60);
  const int32_t i = kIgnoredLabel;
  EXPECT_EQ(batch.labels, (std::vector<int32_t>{i, i, i, i, i, 9, 2, i, i, 2, i, i, i, i, i, i, i, i, i, i, i}));
  const LossCounts counts = count_loss(batch);
  EXPECT_EQ(counts.samples, 2);
  EXPECT_EQ(counts.tokens, 3);
  batch = TextBatch::of({{2, 60, 2}, {2, 7, 2}}, 2, kPadId);
  EXPECT_TRUE(throws_error([&] { label_answers(batch, 60); }, ErrorKind::kData,
                           {"must hold the answer mark 60", "none in sample 1"}));
}

TEST(EpalmInputs, WeightsComeFromTheGlobalBatch) {
  LossCounts global = count_loss(TextBatch::of(kTexts, 3, kPadId));
  global += count_loss(TextBatch::of({{2, 5, 6}}, 3, kPadId));
  EXPECT_EQ(global.samples, 3);
  EXPECT_EQ(global.tokens, 6);
  EXPECT_FLOAT_EQ((LossWeighting{LossWeighting::Kind::kSampleSum, 0.1}.row_weight(global)), 0.1f / 3);
  EXPECT_FLOAT_EQ((LossWeighting{LossWeighting::Kind::kTokenMean, 0.1}.row_weight(global)), 1.0f / 6);
  EXPECT_EQ(LossWeighting{}.row_weight({}), 0.0f);
}

TEST(EpalmInputs, LengthsOfMasks) {
  EXPECT_EQ(lengths_of_mask({1, 1, 0, 0, 0, 0, 1, 1, 1}, 3, 3), (std::vector<int32_t>{2, 0, 3}));
  EXPECT_TRUE(throws_error(
      [] {
        lengths_of_mask({0, 1, 1}, 1, 3);
      },
      ErrorKind::kData, {"ones followed by zeros", "1 at (0, 1)"}));
  EXPECT_TRUE(throws_error([] { lengths_of_mask({1, 2, 0}, 1, 3); }, ErrorKind::kData, {"2 at (0, 1)"}));
  EXPECT_TRUE(
      throws_error([] { lengths_of_mask({1}, 1, 3); }, ErrorKind::kInvalidArgument, {"3 values expected", "got 1"}));
}

TEST(EpalmInputs, RandomNumbersAreAddressedByAsManySamplesAsTheBatchHas) {
  EpalmConfig config = small_epalm();
  config.frozen_dropout = true;
  const EpalmModel model(config);
  const Graph graph = model.build(DType::kF32, {2, 5, false});
  const GraphRunner runner(graph, std::vector<bool>(graph.params().size(), false));
  const InputTensors inputs = [&](std::string_view name) { return runner.input(std::string(name)); };
  const std::vector<float> images(static_cast<size_t>(runner.input("images").elements()));
  const std::vector<uint64_t> ids{70, 3, 4};
  ModelBatch batch;
  batch.images = images;
  batch.text = TextBatch::of(kTexts, 2, kPadId);
  batch.seed = 11;
  batch.epoch = 2;
  batch.sample_ids = std::span(ids).first(2);
  model.fill(batch, inputs);
  EXPECT_EQ(values_of(runner.input("random_address")), (Numbers{11, 2, 70, 3}));
  for (const size_t count : {0, 1, 3}) {
    batch.sample_ids = std::span(ids).first(count);
    EXPECT_TRUE(throws_error([&] { model.fill(batch, inputs); }, ErrorKind::kShapeMismatch,
                             {"epalm inputs: random_address must be", concat("(", 2 + count, ")"), "got (4) i64"}));
  }
}

TEST(EpalmInputs, RefusesWhatDoesNotFit) {
  const EpalmConfig config = config_with_prompts(2);
  const TextBatch batch = TextBatch::of(kTexts, 2, kPadId);
  const Memory rows(2, 5, 6), small(2, 3, 2), good(2, 5, 4);
  EXPECT_TRUE(throws_error([&] { fill_epalm_inputs(config, batch, kPadId, 1, rows.views()); },
                           ErrorKind::kShapeMismatch, {"labels must be (2, 4) i32", "(2, 6)"}));
  EXPECT_TRUE(throws_error([&] { fill_epalm_inputs(config, batch, kPadId, 1, small.views()); },
                           ErrorKind::kInvalidArgument, {"must fit (2, 3)", "got (2, 4)"}));
  EpalmTextInputs missing = good.views();
  missing.lengths_after = {};
  EXPECT_TRUE(throws_error([&] { fill_epalm_inputs(config, batch, kPadId, 1, missing); }, ErrorKind::kShapeMismatch,
                           {"lengths_after must be (2) i32", "nothing"}));
  TextBatch bad = batch;
  bad.lengths[1] = 9;
  EXPECT_TRUE(throws_error([&] { fill_epalm_inputs(config, bad, kPadId, 1, good.views()); },
                           ErrorKind::kInvalidArgument, {"lengths must lie in 0..4", "got 9 for sample 1"}));
  bad = batch;
  bad.labels.clear();
  EXPECT_TRUE(throws_error([&] { fill_epalm_inputs(config, bad, kPadId, 1, good.views()); },
                           ErrorKind::kInvalidArgument, {"8 ids and labels"}));
  EXPECT_TRUE(throws_error([&] { TextBatch::of(kTexts, 1, kPadId); }, ErrorKind::kInvalidArgument,
                           {"at most 1 texts", "got 2"}));
}

}  // namespace
}  // namespace permafrost
