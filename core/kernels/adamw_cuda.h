#pragma once
#include "core/kernels/adamw.h"

namespace permafrost::cuda {

/// As the functions of adamw.h, arguments checked.
void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working);
void adamw_pieces(const Context& context, const AdamwPieces& args);

}  // namespace permafrost::cuda
