#pragma once
#include <span>

#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// out = a + b, elementwise in f32, rounded once; b may have fewer leading axes: its shape must equal the trailing axes
/// of a (a position table added to every sample). out == a is allowed.
/// a, out: same shape and dtype, f32 or bf16;  b: f32, bf16 or f16.  Errors (all of this header): ShapeMismatch.
void add_forward(const Context& context, Tensor a, Tensor b, Tensor out);

/// dst = src or dst += src, same shape; dtypes f32/bf16/f16 are converted (source exact in f32, rounded to nearest
/// even). dst == src (the same memory and dtype) is allowed with kOverwrite and does nothing.
void accumulate(const Context& context, Tensor src, Tensor dst, GradMode mode);

/// dst (trailing axes) = or += sum of src (n, trailing axes...) over the leading axes, in index order, in f32.
/// The gradient of a broadcast. src f32 or bf16, dst f32 (parameter) or dtype of src.
void sum_leading(const Context& context, Tensor src, Tensor dst, GradMode mode);

/// dst (n, trailing axes...) = src (trailing axes): a parameter repeated for every sample (class token, soft prompt).
/// src: f32, bf16 or f16;  dst: f32 or bf16.
void broadcast_leading(const Context& context, Tensor src, Tensor dst);

/// Concatenation along axis 1 of (B, T_i, C) parts into (B, sum T_i, C). All f32 or all bf16.
void concat_tokens(const Context& context, std::span<const Tensor> parts, Tensor out);

/// out = (or, for the gradient of a concatenated part, +=) x[:, begin : begin + out.dim(1), :].
/// x: (B, T, C), out: (B, t, C), both f32 or both bf16.
void slice_tokens(const Context& context, Tensor x, int64_t begin, Tensor out, GradMode mode = GradMode::kOverwrite);
/// Gradient of slice: dx (B, T, C) gets dout in its range; kOverwrite zeroes the rest.
void slice_tokens_backward(const Context& context, Tensor dout, int64_t begin, Tensor dx, GradMode mode);

/// out = x with token `row` replaced by value (B, C). out == x is allowed (writes the row alone). All f32 or all bf16.
/// The gradient towards value is slice_tokens of dout, one token long.
void overwrite_token(const Context& context, Tensor x, Tensor value, int64_t row, Tensor out);
/// Gradient towards x: dx = dout with token `row` zeroed (kOverwrite; dx == dout allowed), or added without that token.
void overwrite_token_backward(const Context& context, Tensor dout, int64_t row, Tensor dx, GradMode mode);

}  // namespace permafrost
