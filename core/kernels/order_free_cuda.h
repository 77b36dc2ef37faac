#pragma once
#include "core/kernels/order_free.h"

namespace permafrost::cuda {

/// As the functions of order_free.h, arguments checked.
void order_free_add(const Context& context, Tensor scale, Tensor gradient, Tensor sums, GradMode mode, Tensor range);
void gradient_range(const Context& context, Tensor gradient, Tensor range);
void order_free_value(const Context& context, OrderFreeScale scale, Tensor sums, Tensor gradient);
void order_free_values(const Context& context, Tensor pieces, Tensor scales, Tensor sums, Tensor slice);
void plain_add(const Context& context, Tensor gradient, Tensor sums, GradMode mode, Tensor range);
void block_square_sums(const Context& context, Tensor values, Tensor sums);
void norm_of_blocks(const Context& context, Tensor sums, double clip_norm, Tensor norm, Tensor clip, Tensor apply);

}  // namespace permafrost::cuda
