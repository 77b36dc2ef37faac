#include "launch/training/input_filler.h"

#include <algorithm>

namespace permafrost {

InputFiller::InputFiller(std::shared_ptr<const Model> model, uint64_t seed, int32_t pad_id, int64_t micro_batch,
                         int64_t max_tokens)
    : model_(std::move(model)) {
  batch_.seed = seed;
  batch_.pad_id = pad_id;
  batch_.text.lengths.reserve(static_cast<size_t>(micro_batch));
  batch_.text.ids.reserve(static_cast<size_t>(micro_batch * max_tokens));
  batch_.text.labels.reserve(static_cast<size_t>(micro_batch * max_tokens));
}

/// The published visual token sees padding up to the longest text of the micro-batch, not up to the bucket.
void InputFiller::take_text(const MicroBatch& batch) {
  TextBatch& text = batch_.text;
  text.batch = batch.batch;
  text.tokens = *std::max_element(batch.key_lengths.begin(), batch.key_lengths.begin() + batch.batch);
  text.lengths.assign(batch.key_lengths.begin(), batch.key_lengths.begin() + batch.batch);
  const auto size = static_cast<size_t>(text.batch * text.tokens);
  text.ids.resize(size);
  text.labels.resize(size);
  for (int64_t row = 0; row < batch.batch; ++row) {
    std::copy_n(batch.input_ids.begin() + row * batch.tokens, text.tokens, text.ids.begin() + row * text.tokens);
    std::copy_n(batch.labels.begin() + row * batch.tokens, text.tokens, text.labels.begin() + row * text.tokens);
  }
}

void InputFiller::fill(const MicroBatch& batch, float row_weight, const Executor& executor, size_t bucket,
                       float loss_scale) {
  if (model_->image_size() > 0) batch_.images = batch.images;
  if (model_->vocab() > 0) take_text(batch);
  if (model_->labels() > 0) batch_.classes = batch.classes;
  batch_.row_weight = row_weight;
  batch_.epoch = batch.epoch;
  batch_.sample_ids = batch.sample_ids;
  // Small enough to be held without an allocation.
  model_->fill(batch_, [&executor, bucket](std::string_view name) { return executor.value(bucket, name); });
  if (const Tensor scale = executor.value(bucket, "loss_scale"); scale.defined()) *scale.data<float>() = loss_scale;
}

}  // namespace permafrost
