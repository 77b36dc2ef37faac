#pragma once
#include "core/device/context.h"
#include "core/kernels/matmul_cuda.h"

namespace permafrost::cuda {

/// The product by a kernel of the project's own: any extents, dtypes and alignment (of whole elements). Each sum is one
/// chain of FMAs in f32, first term to last, so its bits depend on its terms alone. For what cuBLASLt has no algorithm
/// for: correct, without tensor cores.
void plain_multiply(const Context& context, const MatrixProduct& product);

}  // namespace permafrost::cuda
