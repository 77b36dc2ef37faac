#pragma once
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/device/context.h"
#include "core/kernels/linear.h"
#include "core/tensor/dtype.h"

// Which algorithm computes each product of matrices on CUDA, to be chosen, recorded and handed on. On CPU there is
// nothing to choose: lists are empty, and calls do nothing.
namespace permafrost {

/// All that a choice depends on, beside the device and the version of the library. Extents and leading dimensions as
/// cuBLASLt has them, matrices column by column: see linear_cuda.cu. No number of ranks is in it.
struct ProductKey {
  LinearPass pass = LinearPass::kForward;
  int64_t rows = 0, columns = 0, terms = 0, lda = 0, ldb = 0, ldd = 0;
  DType inputs = DType::kF32, output = DType::kF32;
  bool transposed_a = false, transposed_b = false, bias = false, tf32 = false;
  int64_t alignment_a = 1, alignment_b = 1, alignment_d = 1;  ///< bytes, at most 16
  auto operator<=>(const ProductKey&) const = default;
};

/// The attributes by which cuBLASLt tells algorithms apart (cublasLtMatmulAlgoConfigAttributes_t).
struct ProductAlgorithm {
  bool own = false;  ///< the project's kernel, where the library has no algorithm; the rest is 0 then
  int64_t id = 0, tile = 0, stages = 0, split = 0, reduction = 0, swizzle = 0, option = 0, inner = 0, cluster = 0;
  bool operator==(const ProductAlgorithm&) const = default;
};

struct ProductChoice {
  ProductKey key;
  ProductAlgorithm algorithm;
  bool tuned = false;  ///< chosen by measurement, not the first that heuristics name
  bool operator==(const ProductChoice&) const = default;
};
/// "forward m=1 n=2 k=3 bf16->f32 bias ld=3,3,2 align=16,16,16: algorithm=... tuned"
std::string to_string(const ProductKey& key);
std::string to_string(const ProductChoice& choice);

/// Where choices mean something.
struct ProductDevice {
  std::string gpu;                 ///< its name
  std::string compute_capability;  ///< "9.0"
  std::string library;             ///< with its version
  bool operator==(const ProductDevice&) const = default;
};
/// Of the context's stream; empty on CPU.
ProductDevice product_device(const Context& context);

/// Of every product that the context's stream has met, in the order of keys; without those whose algorithm cannot be
/// told by its attributes, which is then the first that heuristics name.
std::vector<ProductChoice> product_choices(const Context& context);

/// The context's stream computes these products so from now on, and does not tune them. Nothing of them is made later.
/// Errors: kInvalidArgument naming a product for which the library refuses the algorithm, or while the stream is
/// captured into a graph.
void use_product_choices(const Context& context, std::span<const ProductChoice> choices);

/// While one lives, kernels on the context's stream time the algorithms that come into question for each product that
/// was neither tuned nor given before, and stay with the fastest. What they compute until then is anything. Errors:
/// kInvalidArgument while the stream is captured into a graph.
class ProductTuning {
 public:
  explicit ProductTuning(const Context& context);
  ~ProductTuning();
  ProductTuning(const ProductTuning&) = delete;
  ProductTuning& operator=(const ProductTuning&) = delete;

 private:
  Context context_;
};

}  // namespace permafrost
