#pragma once
#include "core/kernels/token_cache.h"

/// Arithmetic of token_cache.h on CUDA; arguments are checked already, except numbers.
namespace permafrost::cuda {

void write_tokens(const Context& context, Tensor x, Tensor positions, Tensor cache);
void select_rows(const Context& context, Tensor rows, Tensor lengths, Tensor cache, Tensor workspace);

}  // namespace permafrost::cuda
