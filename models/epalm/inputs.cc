#include "models/epalm/inputs.h"

#include <algorithm>

#include "core/base/narrow.h"

namespace permafrost {

namespace {

void check_epalm_inputs(const EpalmConfig& config, const TextBatch& batch, const EpalmTextInputs& in) {
  constexpr std::string_view kWho = "epalm inputs";
  check_text_inputs(kWho, batch, {in.input_ids, in.position_ids, in.labels, in.row_weight}, config.slots());
  const TensorSpec lengths{{in.input_ids.dim(0)}, DType::kI32};
  check_input(kWho, "lengths_before", in.lengths_before, lengths);
  check_input(kWho, "lengths_after", in.lengths_after, lengths);
  if (in.open_lengths.defined()) check_input(kWho, "open_lengths", in.open_lengths, lengths);
}

}  // namespace

void fill_epalm_inputs(const EpalmConfig& config, const TextBatch& batch, int32_t pad_id, float row_weight,
                       const EpalmTextInputs& inputs) {
  check_epalm_inputs(config, batch, inputs);
  const int64_t tokens = inputs.input_ids.dim(1), rows = inputs.labels.dim(1), prompts = config.prompt_tokens();
  fill_position_ids(batch.lengths, inputs.position_ids);
  for (int64_t b = 0; b < batch.batch; ++b) {
    const int32_t length = batch.lengths[static_cast<size_t>(b)];
    inputs.lengths_before.data<int32_t>()[b] = narrow<int32_t>(prompts + length);
    inputs.lengths_after.data<int32_t>()[b] = narrow<int32_t>(config.slots() + length);
    if (!inputs.open_lengths.defined()) continue;
    const int64_t seen = config.padding == EpalmConfig::Padding::kPublished ? batch.tokens : length;
    inputs.open_lengths.data<int32_t>()[b] = narrow<int32_t>(config.slots() + seen);
  }
  fill_ids(batch, pad_id, inputs.input_ids);
  // In training only text rows predict; otherwise the slots stand before them.
  fill_labels(batch, row_weight, std::max<int64_t>(rows - tokens, 0), inputs.labels, inputs.row_weight);
}

}  // namespace permafrost
