#include <immintrin.h>

#include "core/kernels/activation_lanes_avx512.h"
#include "core/kernels/linear_tile_avx512.h"
#include "core/kernels/vector_math_avx512.h"

// What happens to a finished block of a product: bias, activation, rounding, its place.
namespace permafrost {

namespace {
constexpr int64_t kLanes = 16;

/// The block turned, in `scratch`.
void turn(ProductStore& s, const ProductBlock& block, float* scratch) {
  const int64_t ld = (block.rows + kLanes - 1) / kLanes * kLanes;
  for (int64_t i = 0; i < block.rows; i += kLanes)
    for (int64_t j = 0; j < block.columns; j += kLanes) {
      __m512i rows[16];
#pragma GCC unroll 16
      for (int t = 0; t < 16; ++t) rows[t] = _mm512_load_si512(block.c + (i + t) * block.ldc + j);
      transpose_dwords(rows);
#pragma GCC unroll 16
      for (int t = 0; t < 16; ++t) _mm512_store_si512(scratch + (j + t) * ld + i, rows[t]);
    }
  s.c = scratch;
  s.ldc = ld;
  s.row = block.j0;
  s.column = block.i0;
  s.rows = block.columns;
  s.columns = block.rows;
}

struct FlushedBf16Lanes : avx512::Bf16Lanes {
  static __m256i rounded(__m512 x) {
    const __m256bh pairs = _mm512_cvtneps_pbh(x);
    __m256i bits;
    __builtin_memcpy(&bits, &pairs, sizeof(bits));
    return bits;
  }
  static void store(uint16_t* p, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded(x)); }
  static void store(uint16_t* p, __m512 x, __mmask16 m) { _mm256_mask_storeu_epi16(p, m, rounded(x)); }
};

/// The whole of the epilogue for the lanes of one register. `bias` and `pre` may be null.
template <typename Lanes, Activation A, bool kMasked>
[[gnu::always_inline]] inline void finish_lanes(bool add, __m512 value, const float* bias, typename Lanes::Stored* pre,
                                                typename Lanes::Stored* y, __mmask16 mask) {
  const auto put = [&](typename Lanes::Stored * to, __m512 v) __attribute__((always_inline)) {
    kMasked ? Lanes::store(to, v, mask) : Lanes::store(to, v);
  };
  if (bias) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, bias));
  if (pre) put(pre, value);
  value = avx512::activated<A, sizeof(typename Lanes::Stored) == 2>(value);
  if (add) value = _mm512_add_ps(Lanes::load(y, mask), value);
  put(y, value);
}

template <typename Lanes, Activation A>
void store_lines(ProductStore& s, int64_t lines) {
  using Stored = typename Lanes::Stored;
  const ProductOutput& out = s.product->out;
  for (; lines > 0 && s.i < s.rows; --lines) {
    const int64_t at = (s.row + s.i) * out.ld + s.column + s.j;
    const float* c = s.c + s.i * s.ldc + s.j;
    const float* bias = out.bias ? out.bias + s.column + s.j : nullptr;
    Stored* y = static_cast<Stored*>(out.y) + at;
    Stored* pre = out.pre ? static_cast<Stored*>(out.pre) + at : nullptr;
    const int64_t columns = s.columns - s.j;
    if (columns >= kLineColumns) {
      finish_lanes<Lanes, A, false>(out.add, _mm512_load_ps(c), bias, pre, y, 0xffff);
      finish_lanes<Lanes, A, false>(out.add, _mm512_load_ps(c + kLanes), bias ? bias + kLanes : nullptr,
                                    pre ? pre + kLanes : nullptr, y + kLanes, 0xffff);
    } else {
      for (int64_t j = 0; j < columns; j += kLanes)
        finish_lanes<Lanes, A, true>(out.add, _mm512_load_ps(c + j), bias ? bias + j : nullptr, pre ? pre + j : nullptr,
                                     y + j, avx512::first_lanes(columns - j));
    }
    s.j += kLineColumns;
    if (s.j >= s.columns) {
      s.j = 0;
      ++s.i;
    }
  }
}

template <typename Lanes>
auto lines_with(Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return store_lines<Lanes, Activation::kGelu>;
    case Activation::kQuickGelu:
      return store_lines<Lanes, Activation::kQuickGelu>;
    case Activation::kRelu:
      return store_lines<Lanes, Activation::kRelu>;
    case Activation::kSquaredRelu:
      return store_lines<Lanes, Activation::kSquaredRelu>;
    case Activation::kTanh:
      return store_lines<Lanes, Activation::kTanh>;
    case Activation::kNone:
      break;
  }
  return store_lines<Lanes, Activation::kNone>;
}
}  // namespace

ProductStore begin_store_avx512(const Product& product, const ProductBlock& block, float* scratch, bool flush) {
  ProductStore s{.product = &product,
                 .c = block.c,
                 .ldc = block.ldc,
                 .row = block.i0,
                 .column = block.j0,
                 .rows = block.rows,
                 .columns = block.columns};
  if (product.out.transposed) turn(s, block, scratch);
  const Activation activation = product.out.activation;
  if (product.out.dtype == DType::kF32)
    s.some = lines_with<avx512::F32Lanes>(activation);
  else
    s.some = flush ? lines_with<FlushedBf16Lanes>(activation) : lines_with<avx512::Bf16Lanes>(activation);
  return s;
}

void store_block_avx512(const Product& product, const ProductBlock& block, float* scratch, bool flush) {
  ProductStore s = begin_store_avx512(product, block, scratch, flush);
  s.some(s, product_lines(s.rows, s.columns));
}

}  // namespace permafrost
