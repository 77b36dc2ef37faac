#include "models/epalm/inputs.h"

#include <algorithm>

#include "core/base/narrow.h"

namespace permafrost {

namespace {

constexpr std::string_view kEpalmInputs = "epalm inputs";

/// T of the plan.
int64_t check_epalm_inputs(const EpalmConfig& config, const TextBatch& batch, const EpalmTextInputs& in) {
  const auto check = [](std::string_view name, const Tensor& tensor, const TensorSpec& spec) {
    check_input(kEpalmInputs, name, tensor, spec);
  };
  if (!in.input_ids.defined() || in.input_ids.shape().rank() != 2)
    fail(ErrorKind::kShapeMismatch, kEpalmInputs, ": input_ids must be (B, T) i32; got ", in.input_ids.spec());
  const int64_t b = in.input_ids.dim(0), t = in.input_ids.dim(1);
  check("input_ids", in.input_ids, {{b, t}, DType::kI32});
  check("position_ids", in.position_ids, {{b, t}, DType::kI32});
  check("lengths_before", in.lengths_before, {{b}, DType::kI32});
  check("lengths_after", in.lengths_after, {{b}, DType::kI32});
  if (in.open_lengths.defined()) check("open_lengths", in.open_lengths, {{b}, DType::kI32});
  const EpalmShape training{b, t, false}, everything{b, t, true};
  const bool all = in.labels.defined() && in.labels.shape() == Shape{b, everything.logit_rows(config)};
  const int64_t rows = all ? everything.logit_rows(config) : training.logit_rows(config);
  check("labels", in.labels, {{b, rows}, DType::kI32});
  check("row_weight", in.row_weight, {{b, rows}, DType::kF32});
  PERMAFROST_CHECK(batch.batch == b && batch.tokens <= t, kEpalmInputs, ": a batch must fit (", b, ", ", t, "); got (",
                   batch.batch, ", ", batch.tokens, ")");
  return t;
}

}  // namespace

void fill_epalm_inputs(const EpalmConfig& config, const TextBatch& batch, int32_t pad_id, float row_weight,
                       const EpalmTextInputs& inputs) {
  check_batch(kEpalmInputs, batch);
  const int64_t tokens = check_epalm_inputs(config, batch, inputs), rows = inputs.labels.dim(1),
                prompts = config.prompt_tokens();
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
