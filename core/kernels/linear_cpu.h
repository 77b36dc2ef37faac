#pragma once
#include <cstddef>

#include "core/device/thread_pool.h"
#include "core/kernels/linear.h"
#include "core/kernels/linear_product.h"
#include "core/kernels/vector_math.h"

// The passes of linear.h on CPU, after their checks. The level is an argument so that every version can be tested.
namespace permafrost {

/// The engine that computes products of this dtype and of so many terms.
const ProductEngine& product_engine(SimdLevel level, DType compute, int64_t terms);

/// Computes the product and stores it. `workspace` holds product_workspace_bytes.
void run_product(ThreadPool& pool, const Product& product, const ProductEngine& engine, std::byte* workspace);
int64_t product_workspace_bytes(const Product& product, const ProductEngine& engine, int threads);

/// The products of the passes. Pointers may be null: sizes follow from shapes alone.
Product forward_product(const LinearForward& args);
Product input_gradient_product(const LinearBackwardInput& args);
Product weight_gradient_product(const LinearBackwardWeight& args);

void linear_forward_cpu(const Context& context, const LinearForward& args, Tensor workspace, SimdLevel level);
void linear_backward_input_cpu(const Context& context, const LinearBackwardInput& args, Tensor workspace,
                               SimdLevel level);
void linear_backward_weight_cpu(const Context& context, const LinearBackwardWeight& args, Tensor workspace,
                                SimdLevel level);

}  // namespace permafrost
