#pragma once
#include <immintrin.h>

#include "core/kernels/linear_product.h"

// Pieces shared by the sources of linear layers compiled for AVX-512; for those alone (see vector_math_avx512.h).
namespace permafrost {

/// Transposes 16 x 16 dwords held in 16 registers.
[[gnu::always_inline]] static inline void transpose_dwords(__m512i (&rows)[16]) {
  __m512i pairs[16], quads[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    quads[4 * i] = _mm512_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
    quads[4 * i + 1] = _mm512_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
    quads[4 * i + 2] = _mm512_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
    quads[4 * i + 3] = _mm512_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
  }
  // quads[4 g + e] holds, in 128-bit lane l, column 4 l + e of rows 4 g ... 4 g + 3.
#pragma GCC unroll 4
  for (int e = 0; e < 4; ++e) {
    const __m512i low01 = _mm512_shuffle_i32x4(quads[e], quads[4 + e], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(quads[e], quads[4 + e], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(quads[8 + e], quads[12 + e], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(quads[8 + e], quads[12 + e], 0xee);
    rows[e] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    rows[4 + e] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    rows[8 + e] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    rows[12 + e] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
}

/// A finished block on its way to its place: bias, activation, rounding. Line by line, so that an engine can do that
/// beside the products of the next block.
struct ProductStore {
  const Product* product = nullptr;
  const float* c = nullptr;              ///< the block in the orientation of y, `ldc` floats per row
  int64_t ldc = 0, row = 0, column = 0;  ///< of y, where the block begins
  int64_t rows = 0, columns = 0;
  int64_t i = 0, j = 0;  ///< the next line: row i of the block, columns j ... j + 31
  void (*some)(ProductStore& store, int64_t lines) = nullptr;  ///< does the next lines

  bool done() const { return i >= rows; }
};

constexpr int64_t kLineColumns = 32;
static inline int64_t product_lines(int64_t rows, int64_t columns) {
  return rows * ((columns + kLineColumns - 1) / kLineColumns);
}

/// `flush`: bf16 by the processor's conversion, denormals to zero. `scratch`, as large as the block, is written when
/// the product is transposed.
ProductStore begin_store_avx512(const Product& product, const ProductBlock& block, float* scratch, bool flush);
/// All of it.
void store_block_avx512(const Product& product, const ProductBlock& block, float* scratch, bool flush);

}  // namespace permafrost
