#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Inverted dropout, forward and backward alike: out = x * keep / (1 - p), where keep is drawn per element from
/// Philox addressed by (seed, kDropout, epoch, sample id, layer) and the element's index inside its sample. The mask is
/// never stored: backward calls the same function on the gradient.
/// x, out: (B, ...) f32 or bf16; in place allowed.
/// address: (2 + B) i64: seed, epoch, then one sample id per row of the batch (a plan input, filled per micro-batch).
void dropout(const Context& context, Tensor x, Tensor address, uint32_t layer, float p, Tensor out, GradMode mode);

}  // namespace permafrost
