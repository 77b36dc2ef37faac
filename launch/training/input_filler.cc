#include "launch/training/input_filler.h"

#include <algorithm>
#include <cstring>

namespace permafrost {

InputFiller::InputFiller(const EpalmConfig& model, uint64_t seed, int32_t pad_id, int64_t micro_batch,
                         int64_t max_tokens)
    : model_(model), seed_(seed), pad_id_(pad_id) {
  text_.lengths.reserve(static_cast<size_t>(micro_batch));
  text_.ids.reserve(static_cast<size_t>(micro_batch * max_tokens));
  text_.labels.reserve(static_cast<size_t>(micro_batch * max_tokens));
}

void InputFiller::fill(const MicroBatch& batch, const float* images, float row_weight, const Executor& executor,
                       size_t bucket) {
  const auto input = [&](const char* name) { return executor.value(bucket, name); };
  const Tensor pixels = input("images");
  std::memcpy(pixels.raw(), images, static_cast<size_t>(pixels.bytes()));

  // The published visual token sees padding up to the longest text of the micro-batch, not up to the bucket.
  text_.batch = batch.batch;
  text_.tokens = *std::max_element(batch.key_lengths.begin(), batch.key_lengths.begin() + batch.batch);
  text_.lengths.assign(batch.key_lengths.begin(), batch.key_lengths.begin() + batch.batch);
  const auto size = static_cast<size_t>(text_.batch * text_.tokens);
  text_.ids.resize(size);
  text_.labels.resize(size);
  for (int64_t row = 0; row < batch.batch; ++row) {
    std::copy_n(batch.input_ids.begin() + row * batch.tokens, text_.tokens, text_.ids.begin() + row * text_.tokens);
    std::copy_n(batch.labels.begin() + row * batch.tokens, text_.tokens, text_.labels.begin() + row * text_.tokens);
  }
  const EpalmTextInputs inputs{input("input_ids"),     input("position_ids"), input("lengths_before"),
                               input("lengths_after"), input("open_lengths"), input("labels"),
                               input("row_weight")};
  fill_epalm_inputs(model_, text_, pad_id_, row_weight, inputs);

  if (const Tensor address = input("random_address"); address.defined()) {
    auto* words = address.data<int64_t>();
    words[0] = static_cast<int64_t>(seed_);
    words[1] = batch.epoch;
    for (int64_t row = 0; row < batch.batch; ++row)
      words[2 + row] = static_cast<int64_t>(batch.sample_ids[static_cast<size_t>(row)]);
  }
}

}  // namespace permafrost
