#pragma once
#include "core/kernels/adamw.h"

namespace permafrost::cuda {

/// As adamw (adamw.h), arguments checked.
void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working);

}  // namespace permafrost::cuda
