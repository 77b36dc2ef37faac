#include "core/graph/ops/loss_scale.h"

#include "core/kernels/scale.h"

namespace permafrost {

void check_loss_inputs(std::string_view op, std::span<const TensorSpec> inputs, int64_t rows) {
  if (inputs[1].shape.elements() != rows || inputs[1].dtype != DType::kI32)
    fail(ErrorKind::kShapeMismatch, op, ": labels must be ", rows, " elements of i32; got ", inputs[1]);
  if (inputs[2].shape.elements() != rows || inputs[2].dtype != DType::kF32)
    fail(ErrorKind::kShapeMismatch, op, ": row_weight must be ", rows, " elements of f32; got ", inputs[2]);
  if (inputs.size() > kLossScaleInput && !(inputs[kLossScaleInput] == TensorSpec{{1}, DType::kF32}))
    fail(ErrorKind::kShapeMismatch, op, ": loss_scale must be (1) f32; got ", inputs[kLossScaleInput]);
}

std::vector<Value> loss_inputs(Value logits, Value labels, Value row_weight, Value loss_scale) {
  std::vector<Value> inputs{logits, labels, row_weight};
  if (loss_scale.index >= 0) inputs.push_back(loss_scale);
  return inputs;
}

Tensor scaled_row_weight(const Context& context, std::span<const Tensor> inputs, Tensor row_weight, Tensor place) {
  if (inputs.size() <= kLossScaleInput) return row_weight;
  scale_forward(context, row_weight, inputs[kLossScaleInput], place);
  return place;
}

}  // namespace permafrost
