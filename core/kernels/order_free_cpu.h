#pragma once
#include "core/kernels/order_free.h"

/// Arithmetic of order_free.h on CPU; arguments are checked already.
namespace permafrost::cpu {

void order_free_add(const Context& context, Tensor scale, Tensor gradient, Tensor sums, GradMode mode, Tensor range);
void gradient_range(const Context& context, Tensor gradient, Tensor range);
void order_free_value(const Context& context, OrderFreeScale scale, Tensor sums, Tensor gradient);
void order_free_values(const Context& context, Tensor pieces, Tensor scales, Tensor sums, Tensor slice);
void plain_add(const Context& context, Tensor gradient, Tensor sums, GradMode mode, Tensor range);
void block_square_sums(const Context& context, Tensor values, Tensor sums);
void norm_of_blocks(const Context& context, Tensor sums, double clip_norm, Tensor norm, Tensor clip, Tensor apply);

/// One contiguous run; returns the bits of the largest magnitude.
using OrderFreeLoop = uint32_t (*)(OrderFreeScale scale, const float* gradient, int64_t* sums, int64_t n,
                                   GradMode mode);
uint32_t order_free_loop_baseline(OrderFreeScale scale, const float* gradient, int64_t* sums, int64_t n, GradMode mode);
uint32_t order_free_loop_avx512(OrderFreeScale scale, const float* gradient, int64_t* sums, int64_t n, GradMode mode);

/// Bits of the f32 2^exponent, infinity where that is too large: the first magnitude not allowed.
uint32_t limit_bits(int32_t exponent);

}  // namespace permafrost::cpu
