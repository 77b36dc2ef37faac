#pragma once
#include "core/kernels/embedding.h"

/// Arithmetic of embedding.h on CUDA; arguments are checked already, except ids. The same bits as on CPU.
namespace permafrost::cuda {

void embedding_forward(const Context& context, Tensor ids, Tensor table, Tensor out);
void embedding_backward(const Context& context, Tensor ids, Tensor dout, Tensor dtable, GradMode mode);

}  // namespace permafrost::cuda
