#include "models/epalm/epalm_model.h"

#include "models/epalm/inputs.h"

namespace permafrost {

EpalmModel::EpalmModel(const EpalmConfig& config) : config_(config) { config_.check(); }

Graph EpalmModel::build(DType compute, const ModelShape& shape) const { return build_epalm(config_, compute, shape); }

void EpalmModel::fill(const ModelBatch& batch, const InputTensors& inputs) const {
  fill_images("epalm inputs", batch, inputs("images"));
  const EpalmTextInputs text{inputs("input_ids"),     inputs("position_ids"), inputs("lengths_before"),
                             inputs("lengths_after"), inputs("open_lengths"), inputs("labels"),
                             inputs("row_weight")};
  fill_epalm_inputs(config_, batch.text, batch.pad_id, batch.row_weight, text);
  const Tensor address = inputs("random_address");
  if (!address.defined()) return;
  check_input("epalm inputs", "random_address", address, {{2 + std::ssize(batch.sample_ids)}, DType::kI64});
  auto* words = address.data<int64_t>();
  words[0] = static_cast<int64_t>(batch.seed);
  words[1] = batch.epoch;
  for (size_t row = 0; row < batch.sample_ids.size(); ++row)
    words[2 + row] = static_cast<int64_t>(batch.sample_ids[row]);
}

}  // namespace permafrost
