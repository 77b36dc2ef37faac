#include "models/text_batch.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "models/opt.h"

namespace permafrost {

namespace {

void check_batch(std::string_view who, const TextBatch& batch) {
  const int64_t cells = batch.batch * batch.tokens;
  PERMAFROST_CHECK(
      std::ssize(batch.ids) == cells && std::ssize(batch.labels) == cells && std::ssize(batch.lengths) == batch.batch,
      who, ": a batch of (", batch.batch, ", ", batch.tokens, ") must have ", cells, " ids and labels and ",
      batch.batch, " lengths; got ", batch.ids.size(), ", ", batch.labels.size(), " and ", batch.lengths.size());
  for (size_t b = 0; b < batch.lengths.size(); ++b)
    PERMAFROST_CHECK(batch.lengths[b] >= 0 && batch.lengths[b] <= batch.tokens, who, ": lengths must lie in 0..",
                     batch.tokens, "; got ", batch.lengths[b], " for sample ", b);
}

}  // namespace

void check_input(std::string_view who, std::string_view name, const Tensor& tensor, const TensorSpec& spec) {
  if (!tensor.defined()) fail(ErrorKind::kShapeMismatch, who, ": ", name, " must be ", spec, "; got nothing");
  if (!(tensor.spec() == spec))
    fail(ErrorKind::kShapeMismatch, who, ": ", name, " must be ", spec, "; got ", tensor.spec());
}

void check_text_inputs(std::string_view who, const TextBatch& batch, const TextInputs& inputs, int64_t slots,
                       int64_t positioned) {
  check_batch(who, batch);
  const auto& [ids, positions, labels, weights] = inputs;
  if (!ids.defined() || ids.shape().rank() != 2)
    fail(ErrorKind::kShapeMismatch, who, ": input_ids must be (B, T) i32; got ", ids.spec());
  const int64_t b = ids.dim(0), t = ids.dim(1);
  check_input(who, "input_ids", ids, {{b, t}, DType::kI32});
  check_input(who, "position_ids", positions, {{b, positioned + t}, DType::kI32});
  const int64_t all = slots + t, rows = labels.defined() && labels.shape() == Shape{b, all} ? all : t - 1;
  check_input(who, "labels", labels, {{b, rows}, DType::kI32});
  check_input(who, "row_weight", weights, {{b, rows}, DType::kF32});
  PERMAFROST_CHECK(batch.batch == b && batch.tokens <= t, who, ": a batch must fit (", b, ", ", t, "); got (",
                   batch.batch, ", ", batch.tokens, ")");
}

void fill_ids(const TextBatch& batch, int32_t pad_id, const Tensor& input_ids) {
  const int64_t tokens = input_ids.dim(1);
  for (int64_t b = 0; b < batch.batch; ++b) {
    int32_t* ids = input_ids.data<int32_t>() + b * tokens;
    std::fill_n(ids, tokens, pad_id);
    std::copy_n(batch.ids.begin() + b * batch.tokens, batch.tokens, ids);
  }
}

void fill_labels(const TextBatch& batch, float row_weight, int64_t first_row, const Tensor& labels,
                 const Tensor& row_weights) {
  const int64_t rows = labels.dim(1);
  for (int64_t b = 0; b < batch.batch; ++b) {
    int32_t* label_of = labels.data<int32_t>() + b * rows;
    float* weight_of = row_weights.data<float>() + b * rows;
    std::fill_n(label_of, rows, kIgnoredLabel);
    std::fill_n(weight_of, rows, 0.0f);
    for (int64_t t = 1; t < batch.lengths[static_cast<size_t>(b)]; ++t) {
      const int32_t label = batch.labels[static_cast<size_t>(b * batch.tokens + t)];
      if (label == kIgnoredLabel) continue;
      label_of[first_row + t - 1] = label;
      weight_of[first_row + t - 1] = row_weight;
    }
  }
}

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

void fill_position_ids(const std::vector<int32_t>& lengths, const Tensor& position_ids, int64_t slots) {
  check_input("text inputs", "position_ids", position_ids, {{std::ssize(lengths), position_ids.dim(1)}, DType::kI32});
  auto* row = position_ids.data<int32_t>();
  const auto first = narrow<int32_t>(OptConfig::kPositionOffset);
  for (const int32_t length : lengths)
    for (int32_t t = 0; t < position_ids.dim(1); ++t) *row++ = t < slots + length ? first + t : first - 1;
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
