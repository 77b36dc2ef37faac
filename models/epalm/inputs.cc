#include "models/epalm/inputs.h"

#include <algorithm>

#include "core/base/narrow.h"

namespace permafrost {

namespace {

void check_batch(const TextBatch& batch) {
  const int64_t cells = batch.batch * batch.tokens;
  PERMAFROST_CHECK(
      std::ssize(batch.ids) == cells && std::ssize(batch.labels) == cells && std::ssize(batch.lengths) == batch.batch,
      "epalm inputs: a batch of (", batch.batch, ", ", batch.tokens, ") must have ", cells, " ids and labels and ",
      batch.batch, " lengths; got ", batch.ids.size(), ", ", batch.labels.size(), " and ", batch.lengths.size());
  for (size_t b = 0; b < batch.lengths.size(); ++b)
    PERMAFROST_CHECK(batch.lengths[b] >= 0 && batch.lengths[b] <= batch.tokens, "epalm inputs: lengths must lie in 0..",
                     batch.tokens, "; got ", batch.lengths[b], " for sample ", b);
}

void check_input(std::string_view name, const Tensor& tensor, const TensorSpec& spec) {
  if (!tensor.defined()) fail(ErrorKind::kShapeMismatch, "epalm inputs: ", name, " must be ", spec, "; got nothing");
  if (!(tensor.spec() == spec))
    fail(ErrorKind::kShapeMismatch, "epalm inputs: ", name, " must be ", spec, "; got ", tensor.spec());
}

/// T of the plan.
int64_t check_inputs(const EpalmConfig& config, const TextBatch& batch, const EpalmTextInputs& in) {
  if (!in.input_ids.defined() || in.input_ids.shape().rank() != 2)
    fail(ErrorKind::kShapeMismatch, "epalm inputs: input_ids must be (B, T) i32; got ", in.input_ids.spec());
  const int64_t b = in.input_ids.dim(0), t = in.input_ids.dim(1);
  check_input("input_ids", in.input_ids, {{b, t}, DType::kI32});
  check_input("position_ids", in.position_ids, {{b, t}, DType::kI32});
  check_input("lengths_before", in.lengths_before, {{b}, DType::kI32});
  check_input("lengths_after", in.lengths_after, {{b}, DType::kI32});
  if (in.open_lengths.defined()) check_input("open_lengths", in.open_lengths, {{b}, DType::kI32});
  const EpalmShape training{b, t, false}, everything{b, t, true};
  const bool all = in.labels.defined() && in.labels.shape() == Shape{b, everything.logit_rows(config)};
  const int64_t rows = all ? everything.logit_rows(config) : training.logit_rows(config);
  check_input("labels", in.labels, {{b, rows}, DType::kI32});
  check_input("row_weight", in.row_weight, {{b, rows}, DType::kF32});
  PERMAFROST_CHECK(batch.batch == b && batch.tokens <= t, "epalm inputs: a batch must fit (", b, ", ", t, "); got (",
                   batch.batch, ", ", batch.tokens, ")");
  return t;
}

}  // namespace

TextBatch TextBatch::of(const std::vector<std::vector<int32_t>>& texts, int64_t batch, int32_t pad_id) {
  PERMAFROST_CHECK(std::ssize(texts) <= batch, "TextBatch: at most ", batch, " texts expected; got ", texts.size());
  TextBatch result;
  result.batch = batch;
  for (const auto& text : texts) result.tokens = std::max(result.tokens, std::ssize(text));
  result.ids.assign(static_cast<size_t>(batch * result.tokens), pad_id);
  result.lengths.assign(static_cast<size_t>(batch), 0);
  for (size_t b = 0; b < texts.size(); ++b) {
    result.lengths[b] = narrow<int32_t>(texts[b].size());
    std::ranges::copy(texts[b], result.ids.begin() + static_cast<std::ptrdiff_t>(b) * result.tokens);
  }
  label_all(result);
  return result;
}

void label_all(TextBatch& batch) {
  batch.labels.assign(batch.ids.size(), kIgnoredLabel);
  for (int64_t b = 0; b < batch.batch; ++b) {
    const auto row = batch.ids.begin() + b * batch.tokens;
    std::copy(row, row + batch.lengths[static_cast<size_t>(b)], batch.labels.begin() + b * batch.tokens);
  }
}

void label_answers(TextBatch& batch, int32_t answer_id) {
  label_all(batch);
  for (int64_t b = 0; b < batch.batch; ++b) {
    const int64_t length = batch.lengths[static_cast<size_t>(b)];
    if (length == 0) continue;
    const auto text = batch.ids.begin() + b * batch.tokens;
    int64_t answer = length;  // first token of the answer
    while (answer > 0 && text[answer - 1] != answer_id) --answer;
    if (answer == 0)
      fail(ErrorKind::kData, "loss over answers: every text must hold the answer mark ", answer_id,
           "; got none in sample ", b, " of the micro-batch");
    std::fill_n(batch.labels.begin() + b * batch.tokens, answer, kIgnoredLabel);
  }
}

LossCounts& LossCounts::operator+=(const LossCounts& other) {
  samples += other.samples;
  tokens += other.tokens;
  return *this;
}

LossCounts count_loss(const TextBatch& batch) {
  LossCounts counts;
  for (int64_t b = 0; b < batch.batch; ++b) {
    if (batch.lengths[static_cast<size_t>(b)] > 0) ++counts.samples;
    for (int64_t t = 1; t < batch.tokens; ++t)
      if (batch.labels[static_cast<size_t>(b * batch.tokens + t)] != kIgnoredLabel) ++counts.tokens;
  }
  return counts;
}

float LossWeighting::row_weight(const LossCounts& global) const {
  const int64_t count = kind == Kind::kSampleSum ? global.samples : global.tokens;
  if (count == 0) return 0;
  return static_cast<float>((kind == Kind::kSampleSum ? scale : 1.0) / static_cast<double>(count));
}

void fill_position_ids(const std::vector<int32_t>& lengths, const Tensor& position_ids) {
  check_input("position_ids", position_ids, {{std::ssize(lengths), position_ids.dim(1)}, DType::kI32});
  auto* row = position_ids.data<int32_t>();
  const auto first = narrow<int32_t>(OptConfig::kPositionOffset);
  for (const int32_t length : lengths)
    for (int32_t t = 0; t < position_ids.dim(1); ++t) *row++ = t < length ? first + t : first - 1;
}

void fill_epalm_inputs(const EpalmConfig& config, const TextBatch& batch, int32_t pad_id, float row_weight,
                       const EpalmTextInputs& inputs) {
  check_batch(batch);
  const int64_t tokens = check_inputs(config, batch, inputs), rows = inputs.labels.dim(1),
                prompts = config.prompt_tokens();
  const int64_t first = rows - tokens;  // row of the first text token: the slots, or -1 + 1 where rows = tokens - 1
  fill_position_ids(batch.lengths, inputs.position_ids);
  for (int64_t b = 0; b < batch.batch; ++b) {
    const int32_t length = batch.lengths[static_cast<size_t>(b)];
    inputs.lengths_before.data<int32_t>()[b] = narrow<int32_t>(prompts + length);
    inputs.lengths_after.data<int32_t>()[b] = narrow<int32_t>(config.slots() + length);
    if (inputs.open_lengths.defined()) {
      const int64_t seen = config.padding == EpalmConfig::Padding::kPublished ? batch.tokens : length;
      inputs.open_lengths.data<int32_t>()[b] = narrow<int32_t>(config.slots() + seen);
    }
    int32_t* ids = inputs.input_ids.data<int32_t>() + b * tokens;
    std::fill_n(ids, tokens, pad_id);
    std::copy_n(batch.ids.begin() + b * batch.tokens, batch.tokens, ids);

    int32_t* labels = inputs.labels.data<int32_t>() + b * rows;
    float* weights = inputs.row_weight.data<float>() + b * rows;
    std::fill_n(labels, rows, kIgnoredLabel);
    std::fill_n(weights, rows, 0.0f);
    for (int64_t t = 1; t < length; ++t) {  // token t is predicted by the row before it
      const int32_t label = batch.labels[static_cast<size_t>(b * batch.tokens + t)];
      if (label == kIgnoredLabel) continue;
      const int64_t row = std::max<int64_t>(first, 0) + t - 1;
      labels[row] = label;
      weights[row] = row_weight;
    }
  }
}

std::vector<int32_t> lengths_of_mask(const std::vector<int64_t>& mask, int64_t batch, int64_t tokens) {
  PERMAFROST_CHECK(std::ssize(mask) == batch * tokens, "attention_mask: ", batch * tokens, " values expected; got ",
                   mask.size());
  std::vector<int32_t> lengths;
  for (int64_t b = 0; b < batch; ++b) {
    int32_t length = 0;
    while (length < tokens && mask[static_cast<size_t>(b * tokens + length)] == 1) ++length;
    for (int64_t t = length; t < tokens; ++t)
      if (mask[static_cast<size_t>(b * tokens + t)] != 0)
        fail(ErrorKind::kData, "attention_mask: every row must be ones followed by zeros (padding on the right); got ",
             mask[static_cast<size_t>(b * tokens + t)], " at (", b, ", ", t, ")");
    lengths.push_back(length);
  }
  return lengths;
}

}  // namespace permafrost
