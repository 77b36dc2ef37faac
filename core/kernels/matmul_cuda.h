#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/device/context.h"
#include "core/kernels/linear.h"
#include "core/kernels/product_choices.h"
#include "core/tensor/dtype.h"

// Products of matrices through cuBLASLt, with what it has to be told once per shape kept in the queue.
namespace permafrost::cuda {

/// D = op(A) op(B) + bias, in f32, each matrix column by column in memory as cuBLASLt has it: a row-major (M, N) tensor
/// is N rows of M columns, its ld is N.
struct MatrixProduct {
  struct Operand {
    const void* data = nullptr;
    int64_t ld = 0;
    bool transposed = false;  ///< op: what is in memory is the transpose of what is multiplied
  };
  LinearPass pass = LinearPass::kForward;
  int64_t rows = 0, columns = 0, terms = 0;  ///< of D, and of each of its sums; none of them 0
  DType inputs = DType::kF32;                ///< of A and B: f32, bf16 or f16
  Operand a, b;
  DType output = DType::kF32;  ///< of D: that of the inputs, or f32
  void* d = nullptr;
  int64_t ldd = 0;
  const void* bias = nullptr;  ///< one per row of D, of D's dtype, at a multiple of 16 bytes; null = none
  bool add = false;            ///< to what D holds: added in f32, rounded once
};

constexpr int64_t kMatmulAlignment = 256;
/// What algorithms may use: what NVIDIA recommends for Hopper, less where sixteen partial results in f32 are less.
inline int64_t matmul_workspace_bytes(int64_t rows, int64_t columns) {
  constexpr int64_t kMost = int64_t{32} << 20, kLeast = int64_t{1} << 20, kParts = 16;
  const int64_t parts = rows * columns > kMost / (4 * kParts) ? kMost : rows * columns * 4 * kParts;
  return std::min(kMost, kLeast + (parts + kMatmulAlignment - 1) / kMatmulAlignment * kMatmulAlignment);
}

/// Runs it in the order of the context's stream. `workspace`: matmul_workspace_bytes(rows, columns) at a multiple of
/// kMatmulAlignment. Which algorithm is used follows from shape, dtypes, alignment up to 16 bytes, device and version
/// of the library alone, unless it was tuned or given; none sums in an order that varies. Where the library has none,
/// plain_multiply computes. A queue belongs to one thread of the host at a time; what it makes for a product that it
/// has not met must not be made while it is captured.
void multiply(const Context& context, const MatrixProduct& product, std::byte* workspace);

/// What product_choices.h says.
std::string matmul_library();
std::vector<ProductChoice> matmul_choices(const Context& context);
void use_matmul_choices(const Context& context, std::span<const ProductChoice> choices);
void set_matmul_tuning(const Context& context, bool tuning);

}  // namespace permafrost::cuda
