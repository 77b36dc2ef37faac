#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Inverted dropout, forward and backward alike: out = or += x * keep / (1 - p). keep is drawn per element: element e
/// of a sample is kept when draw e of Random(seed, kDropout, epoch, sample id, layer).next_float() is >= p, so it
/// depends neither on the other samples of the batch nor on threads. The mask is never stored: backward calls the same
/// function on the gradient. A dropped NaN stays NaN. x, out: (B, ...) same shape and dtype, f32 or bf16; in place
/// allowed. address: (2 + B) i64: seed, epoch, then one sample id per row of the batch (a plan input, filled per
/// micro-batch). Errors: ShapeMismatch; InvalidArgument when p is not in [0, 1), the epoch is not in 32 bits, or a
/// sample has more than 2^34 elements. Source: Srivastava et al. 2014, section 10 (the scaled variant).
void dropout(const Context& context, Tensor x, Tensor address, uint32_t layer, float p, Tensor out, GradMode mode);

}  // namespace permafrost
