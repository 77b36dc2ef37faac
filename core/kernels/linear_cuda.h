#pragma once
#include <algorithm>
#include <cstdint>

#include "core/base/narrow.h"
#include "core/kernels/linear.h"
#include "core/kernels/matmul_cuda.h"

namespace permafrost::cuda {

/// As the functions of linear.h, arguments checked.
void linear_forward(const Context& context, const LinearForward& args, Tensor workspace);
void linear_backward_input(const Context& context, const LinearBackwardInput& args, Tensor workspace);
void linear_backward_weight(const Context& context, const LinearBackwardWeight& args, Tensor workspace);
void tune_linear(const Context& context, const LinearForward& args, Tensor workspace);
void tune_linear(const Context& context, const LinearBackwardInput& args, Tensor workspace);
void tune_linear(const Context& context, const LinearBackwardWeight& args, Tensor workspace);

/// What the workspace of a pass is for, in bytes, part after part, the first at a multiple of kMatmulAlignment. A pure
/// function of its arguments, in builds without CUDA too.
struct LinearParts {
  static constexpr int64_t kChunkRows = 256;                  ///< of dy whose sums are one partial sum of dbias
  static constexpr int64_t kWeightBytes = int64_t{16} << 20;  ///< of a block of converted weights: stays in the cache
  static constexpr int64_t kFeatureStep = 64;                 ///< blocks are of so many features, or multiples

  int64_t product = 0;         ///< for the library
  int64_t vector = 0;          ///< forward: a bias that it can use; backward: partial sums of dbias
  int64_t weight = 0;          ///< a block of weights in f32
  int64_t block_features = 0;  ///< of it: columns of the result that are computed at a time

  LinearParts(LinearPass pass, int64_t m, int64_t n, int64_t k, DType compute, DType stored) {
    const bool forward = pass == LinearPass::kForward, parameters = pass == LinearPass::kBackwardWeight;
    const int64_t rows = forward ? n : k, columns = parameters ? n : m;
    const int64_t terms = forward ? k : parameters ? m : n;
    block_features = rows;
    if (forward) vector = m == 0 || k == 0 ? 0 : round_up(4 * n, kMatmulAlignment);
    if (parameters && m > kChunkRows) vector = round_up(4 * n * div_up(m, kChunkRows), kMatmulAlignment);
    if (rows == 0 || columns == 0 || terms == 0) return;
    product = matmul_workspace_bytes(rows, columns);
    if (parameters || stored == compute) return;
    const int64_t most = kWeightBytes / (4 * terms) / kFeatureStep * kFeatureStep;
    block_features = std::min(rows, std::max(most, kFeatureStep));
    weight = round_up(4 * block_features * terms, kMatmulAlignment);
  }

  /// With room to find such a multiple.
  int64_t bytes() const {
    const int64_t all = product + vector + weight;
    return all == 0 ? 0 : all + kMatmulAlignment - 1;
  }
};

}  // namespace permafrost::cuda
