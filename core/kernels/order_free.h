#pragma once
#include <cstdint>

#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Exponent of a tensor of zeros; below every other.
inline constexpr int32_t kZeroExponent = INT32_MIN;

/// The largest magnitude of a gradient, as the bits of a non-negative f32: they are ordered like the numbers, with
/// infinity and then NaN above all finite ones. Kernels combine it by maximum, in any order, into a tensor `range` of
/// one i32 beside the gradient; this is what such a number says, once it is on the host.
struct GradientRange {
  int32_t largest_bits = 0;
  bool finite() const { return largest_bits < 0x7f800000; }
  /// Smallest e with |x| < 2^e for every x seen; kZeroExponent for zeros; 129 when not finite.
  int32_t exponent() const;
};

/// Where a tensor's integers stand: x is stored as round(x 2^shift), and only |x| < 2^exponent is allowed.
struct OrderFreeScale {
  int32_t exponent = 0;
  int32_t shift = 0;
  /// Room for `micro_batches` summands: shift = 63 - ceil(log2(micro_batches)) - exponent. A function of E and G alone.
  /// exponent is clamped to -100..140, so that 2^shift and 2^-shift are exact in f64.
  static OrderFreeScale make(int32_t exponent, int64_t micro_batches);
};
static_assert(sizeof(OrderFreeScale) == 2 * sizeof(int32_t));  // kernels take it as a tensor (2) i32

/// sums (+)= round(gradient 2^shift), to nearest even, and range = max(range, |gradient|) in the same pass.
/// scale: (2) i32, an OrderFreeScale beside the gradient, so that a captured program can be run again with another;
/// gradient: f32, any shape;  sums: (n) i64;  range: (1) i32, see GradientRange. Values outside |x| < 2^exponent (NaN
/// included) add nothing: the caller sees them in `range` and repeats the step. CPU and CUDA give the same bits, of
/// these functions and of all below (those of a NaN excepted). Errors: ShapeMismatch. Source: docs/numerics.md.
void order_free_add(const Context& context, Tensor scale, Tensor gradient, Tensor sums, GradMode mode, Tensor range);

/// The range alone: step 0 has no exponents yet.
void gradient_range(const Context& context, Tensor gradient, Tensor range);

/// gradient = f32(f64(sums) 2^-shift), each conversion to nearest even. sums: (n) i64;  gradient: (n) f32.
void order_free_value(const Context& context, OrderFreeScale scale, Tensor sums, Tensor gradient);

/// The same for a slice of many parameters, zero between them. pieces: (n, 5) i64, see FlatPiece (flat_pieces.h);
/// scales: (rows, 2) i32, an OrderFreeScale per parameter;  sums: (s) i64;  slice: (s) f32.
void order_free_values(const Context& context, Tensor pieces, Tensor scales, Tensor sums, Tensor slice);

/// sums (+)= gradient in f32, whose result depends on the order of calls: for control runs. Range as above.
void plain_add(const Context& context, Tensor gradient, Tensor sums, GradMode mode, Tensor range);

/// Elements whose squares are summed together.
inline constexpr int64_t kSquareSumBlock = 4096;
/// sums[b] = sum of squares of values[4096 b .. 4096 (b + 1)) in f64: eight partial sums (element i into i mod 8), then
/// ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)). Squares of f32 are exact in f64. values: (n) f32;  sums: (ceil(n / 4096))
/// f64.
void block_square_sums(const Context& context, Tensor values, Tensor sums);

/// The Euclidean norm that such sums make, and what follows from it for a step: norm = sqrt(sums[0] + sums[1] + ...),
/// added in this order in f64; clip = min(1, clip_norm / (norm + 1e-6)), or 1 without clipping (clip_norm <= 0);
/// apply = 1 if the norm is finite, else 0. sums: (n) f64;  norm: (1) f64;  clip: (1) f32;  apply: (1) i32.
/// Source: PyTorch's clip_grad_norm_.
void norm_of_blocks(const Context& context, Tensor sums, double clip_norm, Tensor norm, Tensor clip, Tensor apply);

}  // namespace permafrost
