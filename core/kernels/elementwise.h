#pragma once
#include <cstdint>

#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost::cpu {

/// Loops over contiguous runs of elements, under the shape operations, embedding and patchify. Dtypes f32, bf16, f16;
/// arithmetic in f32, one rounding. Two builds of one source (elementwise_loops.h), the same bits from both.
struct ElementLoops {
  void (*convert)(DType from, const void* source, DType to, void* target, int64_t n);     ///< target = source
  void (*accumulate)(DType from, const void* source, DType to, void* target, int64_t n);  ///< target += source
  /// out = a + b. a and out share a dtype; out == a is allowed.
  void (*add)(DType dtype, const void* a, DType b_dtype, const void* b, void* out, int64_t n);
  /// out = or += factor * x; one dtype, f32 or bf16. out == x is allowed with kOverwrite.
  void (*scale)(DType dtype, float factor, const void* x, void* out, int64_t n, GradMode mode);
};

extern const ElementLoops kElementLoopsBaseline;
extern const ElementLoops kElementLoopsAvx512;

/// The build for this processor.
const ElementLoops& element_loops();

/// Elements per block of elementwise work: 64 KiB of f32.
inline constexpr int64_t kElementBlock = 16384;

inline std::byte* at(const Tensor& tensor, int64_t element) {
  return static_cast<std::byte*>(tensor.raw()) + element * size_of(tensor.dtype());
}

/// body(begin, end) for consecutive ranges of `block` elements that cover [0, n).
template <typename Body>
void for_ranges(const Context& context, int64_t n, int64_t block, Body body) {
  context.pool->run((n + block - 1) / block, [&](int64_t index, int) {
    const int64_t begin = index * block;
    body(begin, begin + block < n ? begin + block : n);
  });
}

}  // namespace permafrost::cpu
