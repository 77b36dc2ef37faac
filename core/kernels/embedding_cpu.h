#pragma once
#include "core/kernels/embedding.h"

/// Arithmetic of embedding.h on CPU; shapes are checked already, ids are checked here.
namespace permafrost::cpu {

void embedding_forward(const Context& context, Tensor ids, Tensor table, Tensor out);
void embedding_backward(const Context& context, Tensor ids, Tensor dout, Tensor dtable, GradMode mode);

}  // namespace permafrost::cpu
