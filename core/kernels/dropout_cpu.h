#pragma once
#include <array>

#include "core/kernels/dropout.h"

/// Arithmetic of dropout.h on CPU; arguments are checked already.
namespace permafrost::cpu {

void dropout(const Context& context, Tensor x, Tensor address, uint32_t layer, float p, Tensor out, GradMode mode);

/// A run of factors: 0 where dropped, `scale` where kept (draw >> 8 >= threshold).
struct DropoutFactors {
  std::array<uint32_t, 4> counter;  ///< word 0 is replaced by the index of the Philox block
  std::array<uint32_t, 2> key;
  uint32_t threshold;
  float scale;
};

/// Elements per piece; its factors stay in the first-level cache.
inline constexpr int64_t kDropoutPiece = 1024;

/// Two builds of the same results. `factors` has room for kDropoutPiece values, of which those of the Philox blocks
/// first_block ... first_block + ceil(n / 4) - 1 are written, four each.
struct DropoutLoops {
  void (*draw)(const DropoutFactors& factors, uint32_t first_block, int64_t n, float* out);
  /// out = or += x * factors.
  void (*apply)(DType dtype, const void* x, const float* factors, void* out, int64_t n, GradMode mode);
};
extern const DropoutLoops kDropoutLoopsBaseline;
extern const DropoutLoops kDropoutLoopsAvx512;

}  // namespace permafrost::cpu
