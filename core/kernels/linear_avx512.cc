#include <immintrin.h>

#include "core/kernels/linear_tile_avx512.h"
#include "core/kernels/vector_math_avx512.h"

// f32 products on AVX-512; bf16 and f16 operands are converted when they are packed. A: panels of 8 rows, term by term,
// or in place. B: panels of 48 columns, term by term; the last panel is as wide as it must be, in multiples of 16.
namespace permafrost {

namespace {
constexpr int64_t kRows = 8, kLanes = 16, kPanel = 48, kBlockRows = 32, kBlockColumns = 768;
constexpr int64_t kFewRows = 32;  // up to this many, B is not packed

const std::byte* address(const ProductOperand& m, int64_t outer, int64_t r) {
  const int64_t size = m.dtype == DType::kF32 ? 4 : 2;
  return static_cast<const std::byte*>(m.data) + (m.r_contiguous ? outer * m.ld + r : r * m.ld + outer) * size;
}

struct F32Source {
  static constexpr int64_t kBytes = 4;
  static __m512 load(const std::byte* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
};
struct Bf16Source {
  static constexpr int64_t kBytes = 2;
  static __m512 load(const std::byte* p, __mmask16 m) { return avx512::from_bf16(_mm256_maskz_loadu_epi16(m, p)); }
};
struct F16Source {
  static constexpr int64_t kBytes = 2;
  static __m512 load(const std::byte* p, __mmask16 m) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)); }
};

template <typename Function>
void with_source(DType dtype, Function&& function) {
  if (dtype == DType::kF32) return function(F32Source{});
  if (dtype == DType::kBF16) return function(Bf16Source{});
  function(F16Source{});
}

/// 16 outer rows x 16 terms of a matrix with contiguous terms, transposed: rows[t] holds term r + t. Zeros outside.
template <typename Source>
[[gnu::always_inline]] inline void load_transposed(const ProductOperand& m, int64_t outer, int64_t outer_end, int64_t r,
                                                   int64_t r_end, __m512i (&rows)[16]) {
  const std::byte* p = address(m, outer, r);
  const __mmask16 mask = avx512::first_lanes(r_end - r);
  const int64_t stride = m.ld * Source::kBytes;
  if (outer + kLanes <= outer_end) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = _mm512_castps_si512(Source::load(p + i * stride, mask));
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      rows[i] = _mm512_setzero_si512();
      if (outer + i < outer_end) rows[i] = _mm512_castps_si512(Source::load(p + i * stride, mask));
    }
  }
  transpose_dwords(rows);
}

bool must_pack_a(const Product& p) { return !p.a.r_contiguous || p.a.dtype != DType::kF32; }
/// B's rows can be loaded as they are.
bool packs_meanwhile(const Product& p, bool) {
  return !p.b.r_contiguous && p.b.dtype == DType::kF32 && p.j % kLanes == 0;
}
bool reads_b_in_place(const Product& p) { return p.i <= kFewRows && packs_meanwhile(p, false); }

/// Two panels at a time: a register holds 16 rows.
template <typename Source>
void pack_a_from(const Product& p, int64_t i0, int64_t count, float* out) {
  const int64_t panel = p.r * kRows, i_end = i0 + count * kRows < p.i ? i0 + count * kRows : p.i;
  const auto put = [&](__m512 rows, int64_t i, int64_t r) {
    float* to = out + (i - i0) * p.r + r * kRows;
    _mm256_store_ps(to, _mm512_castps512_ps256(rows));
    if (i + kRows < i0 + count * kRows) _mm256_store_ps(to + panel, _mm512_extractf32x8_ps(rows, 1));
  };
  if (!p.a.r_contiguous) {
    for (int64_t r = 0; r < p.r; ++r)
      for (int64_t i = i0; i < i_end; i += kLanes)
        put(Source::load(address(p.a, i, r), avx512::first_lanes(i_end - i)), i, r);
    return;
  }
  for (int64_t i = i0; i < i_end; i += kLanes)
    for (int64_t r = 0; r < p.r; r += kLanes) {
      __m512i rows[16];
      load_transposed<Source>(p.a, i, i_end, r, p.r, rows);
      for (int64_t t = 0; t < kLanes && r + t < p.r; ++t) put(_mm512_castsi512_ps(rows[t]), i, r + t);
    }
}

void pack_a(const Product& p, int64_t panel, int64_t count, void* packed) {
  with_source(p.a.dtype, [&]<typename Source>(Source) {
    pack_a_from<Source>(p, panel * kRows, count, static_cast<float*>(packed));
  });
}

int64_t panel_width(int64_t columns) { return columns >= kPanel ? kPanel : (columns + kLanes - 1) / kLanes * kLanes; }

template <typename Source>
void pack_b_from(const Product& p, int64_t j0, int64_t columns, int64_t r0, int64_t r1, float* out) {
  const int64_t end = j0 + columns;
  for (int64_t j = j0; j < end; j += kPanel) {
    const int64_t width = panel_width(end - j);
    if (p.b.r_contiguous) {
      for (int64_t r = r0; r < r1; r += kLanes) {
        const int64_t count = r1 - r < kLanes ? r1 - r : kLanes;
        for (int64_t part = 0; part < width; part += kLanes) {
          __m512i rows[16];
          load_transposed<Source>(p.b, j + part, end, r, r1, rows);
          float* to = out + (r - r0) * width + part;
          if (count == kLanes) {
#pragma GCC unroll 16
            for (int t = 0; t < 16; ++t) _mm512_store_si512(to + t * width, rows[t]);
          } else {
            for (int t = 0; t < count; ++t) _mm512_store_si512(to + t * width, rows[t]);
          }
        }
      }
    } else {
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t part = 0; part < width; part += kLanes)
          _mm512_store_ps(out + (r - r0) * width + part,
                          Source::load(address(p.b, j + part, r), avx512::first_lanes(end - j - part)));
    }
    out += (r1 - r0) * width;
  }
}

void pack_b(const Product& p, int64_t j0, int64_t columns, int64_t r0, int64_t r1, void* packed) {
  with_source(p.b.dtype, [&]<typename Source>(Source) {
    pack_b_from<Source>(p, j0, columns, r0, r1, static_cast<float*>(packed));
  });
}

/// A panel of 8 rows of A: element (i, r) is data[i row_stride + r] in place, data[r 8 + i] packed.
struct RowPanel {
  const float* data;
  int64_t row_stride;
};

/// A panel of columns of B: term r begins at data + r stride. Where not null, `copy` receives it packed.
struct ColumnPanel {
  const float* data;
  int64_t stride;
  float* copy;
};

enum class BSource { kPacked, kInPlace, kFirstInPlace, kPacking };  ///< the last two ask for B ahead

/// c (8 x 16 kVectors) += A B over `terms` terms.
template <int kVectors, bool kPackedA, BSource kB>
[[gnu::noinline]] void multiply_panel(RowPanel a, ColumnPanel b, int64_t terms, float* c, int64_t ldc, bool first) {
  constexpr int64_t kAhead = 24;  // terms
  const int64_t stride = kB == BSource::kPacked ? kVectors * kLanes : b.stride;
  __m512 sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v)
      sums[i][v] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + i * ldc + v * kLanes);
  for (int64_t r = 0; r < terms; ++r) {
    __m512 columns[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      columns[v] = _mm512_loadu_ps(b.data + v * kLanes);
      if constexpr (kB == BSource::kPacking) _mm512_store_ps(b.copy + v * kLanes, columns[v]);
    }
    if constexpr (kB == BSource::kPacking || kB == BSource::kFirstInPlace) {
      const float* later = b.data + (r + kAhead < terms ? kAhead * stride : 0);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) _mm_prefetch(reinterpret_cast<const char*>(later + v * kLanes), _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512 row = _mm512_set1_ps(kPackedA ? a.data[i] : a.data[i * a.row_stride]);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) sums[i][v] = _mm512_fmadd_ps(row, columns[v], sums[i][v]);
    }
    a.data += kPackedA ? kRows : 1;
    b.data += stride;
    if constexpr (kB == BSource::kPacking) b.copy += kVectors * kLanes;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(c + i * ldc + v * kLanes, sums[i][v]);
}

template <BSource kB>
void multiply_panel(const Product& p, const ProductBlock& block, int64_t i, int64_t r, int64_t terms, int64_t width,
                    ColumnPanel b, float* c) {
  const bool first = block.first && r == block.r0;
  const auto with = [&]<int kVectors>() {
    if (block.packed_a)
      return multiply_panel<kVectors, true, kB>({static_cast<const float*>(block.packed_a) + i * p.r + r * kRows, 0}, b,
                                                terms, c, block.ldc, first);
    multiply_panel<kVectors, false, kB>({static_cast<const float*>(p.a.data) + (block.i0 + i) * p.a.ld + r, p.a.ld}, b,
                                        terms, c, block.ldc, first);
  };
  if (width == 48) with.template operator()<3>();
  if (width == 32) with.template operator()<2>();
  if (width == 16) with.template operator()<1>();
}

const float* in_place(const Product& p, int64_t j, int64_t r) {
  return static_cast<const float*>(p.b.data) + r * p.b.ld + j;
}

/// B in place, some terms at a time, which stay in cache for the other panels of rows.
void multiply_few_rows(const Product& p, const ProductBlock& block) {
  constexpr int64_t kTermsAtATime = 256;
  int64_t r = block.r0;
  do {
    const int64_t terms = block.r1 - r < kTermsAtATime ? block.r1 - r : kTermsAtATime;
    for (int64_t j = 0; j < block.columns; j += kPanel)
      for (int64_t i = 0; i < block.rows; i += kRows) {
        const ColumnPanel b{in_place(p, block.j0 + j, r), p.b.ld, nullptr};
        const int64_t width = panel_width(block.columns - j);
        float* c = block.c + i * block.ldc + j;
        i == 0 ? multiply_panel<BSource::kFirstInPlace>(p, block, i, r, terms, width, b, c)
               : multiply_panel<BSource::kInPlace>(p, block, i, r, terms, width, b, c);
      }
    r += terms;
  } while (r < block.r1);
}

void multiply(const Product& p, const ProductBlock& block) {
  if (!block.packed_b) return multiply_few_rows(p, block);
  const int64_t terms = block.r1 - block.r0;
  for (int64_t i = 0; i < block.rows; i += kRows) {
    auto* b = static_cast<float*>(block.packed_b);
    for (int64_t j = 0; j < block.columns; j += kPanel) {
      const int64_t width = panel_width(block.columns - j);
      float* c = block.c + i * block.ldc + j;
      if (block.pack_b && i == 0)
        multiply_panel<BSource::kPacking>(p, block, i, block.r0, terms, width,
                                          {in_place(p, block.j0 + j, block.r0), p.b.ld, b}, c);
      else
        multiply_panel<BSource::kPacked>(p, block, i, block.r0, terms, width, {b, 0, nullptr}, c);
      b += terms * width;
    }
  }
}

void store(const Product& p, const ProductBlock& block, float* scratch) {
  store_block_avx512(p, block, scratch, false);
}
void nothing() {}
}  // namespace

const ProductEngine& avx512_engine() {
  static constexpr ProductEngine kEngine = {.panel_i = kRows,
                                            .panel_j = kPanel,
                                            .r_step = 1,
                                            .row_step = kRows,
                                            .block_i = kBlockRows,
                                            .block_j = kBlockColumns,
                                            .group_j = kPanel,
                                            .narrow_j = 128,
                                            .element_bytes = 4,
                                            .ahead_terms = 0,
                                            .stores_meanwhile = false,
                                            .b_bytes = 1280 * 1024,
                                            .copies_a = false,
                                            .must_pack_a = must_pack_a,
                                            .packs_meanwhile = packs_meanwhile,
                                            .reads_b_in_place = reads_b_in_place,
                                            .pack_a = pack_a,
                                            .pack_b = pack_b,
                                            .multiply = multiply,
                                            .store = store,
                                            .begin = nothing,
                                            .end = nothing};
  return kEngine;
}

void column_sums_avx512(const ColumnSums& s) {
  constexpr int64_t kChunk = 256;
  with_source(s.dtype, [&]<typename Source>(Source) {
    for (int64_t j = 0; j < s.columns; j += kLanes) {
      const __mmask16 mask = avx512::first_lanes(s.columns - j);
      __m512 total = _mm512_setzero_ps();
      for (int64_t row = 0; row < s.rows; row += kChunk) {
        const int64_t end = row + kChunk < s.rows ? row + kChunk : s.rows;
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = row; i < end; ++i)
          sum = _mm512_add_ps(
              sum, Source::load(static_cast<const std::byte*>(s.dy) + (i * s.ld + s.j0 + j) * Source::kBytes, mask));
        total = _mm512_add_ps(total, sum);
      }
      float* to = s.sums + s.j0 + j;
      if (s.add) total = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), total);
      _mm512_mask_storeu_ps(to, mask, total);
    }
  });
}

}  // namespace permafrost
