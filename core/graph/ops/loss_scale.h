#pragma once
#include <span>
#include <string_view>

#include "core/device/context.h"
#include "core/graph/graph.h"

namespace permafrost {

// What the two operations that end in a loss have in common: an optional last input, their fourth, by which backward
// multiplies the weights of rows. It is data and no constant, so that one program serves for every scale.

constexpr size_t kLossScaleInput = 3;

/// labels, row_weight and, where there is one, loss_scale fit `rows` rows. op: for messages. Errors: ShapeMismatch.
void check_loss_inputs(std::string_view op, std::span<const TensorSpec> inputs, int64_t rows);

/// logits, labels, row_weight and, where it is given, loss_scale.
std::vector<Value> loss_inputs(Value logits, Value labels, Value row_weight, Value loss_scale);

inline bool has_loss_scale(const OpSpecs& specs) { return specs.inputs.size() > kLossScaleInput; }

/// What backward multiplies rows by: row_weight (R) f32 itself, or its product with the scale, written to `place`, (R)
/// f32. A power of two changes no bit but those of the exponent.
Tensor scaled_row_weight(const Context& context, std::span<const Tensor> inputs, Tensor row_weight, Tensor place);

}  // namespace permafrost
