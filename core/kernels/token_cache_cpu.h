#pragma once
#include "core/kernels/token_cache.h"

/// Arithmetic of token_cache.h on CPU; shapes are checked already.
namespace permafrost::cpu {

void write_tokens(const Context& context, Tensor x, Tensor positions, Tensor cache);
void select_rows(const Context& context, Tensor rows, Tensor lengths, Tensor cache, Tensor workspace);

}  // namespace permafrost::cpu
