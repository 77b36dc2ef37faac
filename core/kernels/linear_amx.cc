#include <immintrin.h>

#include "core/kernels/linear_tile_avx512.h"
#include "core/kernels/vector_math_avx512.h"

// bf16 products on AMX. A tile of A: 16 rows of 32 terms, as they lie in a row-major matrix. A tile of B: 16 columns of 32
// terms, two terms of a column side by side. Packed panels are 32 wide: for every 32 terms two tiles of 1024 bytes.
namespace permafrost {

namespace {
constexpr int64_t kTile = 16, kPanel = 32, kTerms = 32, kBlock = 64;
constexpr int64_t kTileBytes = 1024, kStepBytes = 2 * kTileBytes;

int64_t steps_of(int64_t terms) { return (terms + kTerms - 1) / kTerms; }

const uint16_t* element(const ProductOperand& m, int64_t outer, int64_t r) {
  return static_cast<const uint16_t*>(m.data) + (m.r_contiguous ? outer * m.ld + r : r * m.ld + outer);
}

__mmask32 first_words(int64_t n) {
  return n >= 32 ? __mmask32{0xffffffffu} : n <= 0 ? __mmask32{0} : static_cast<__mmask32>((uint64_t{1} << n) - 1u);
}

/// Rows `outer ... outer + 15` of a matrix whose terms are contiguous, 32 terms from r on; zeros outside.
[[gnu::always_inline]] inline void load_rows(const ProductOperand& m, int64_t outer, int64_t outer_end, int64_t r,
                                             int64_t r_end, __m512i (&rows)[16]) {
  const uint16_t* p = element(m, outer, r);
  if (outer + kTile <= outer_end && r + kTerms <= r_end) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(p + i * m.ld);
    return;
  }
  const __mmask32 mask = first_words(r_end - r);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    rows[i] = _mm512_setzero_si512();
    if (outer + i < outer_end) rows[i] = _mm512_maskz_loadu_epi16(mask, p + i * m.ld);
  }
}

/// Terms r ... r + 31 of 32 outer indices of a matrix whose outer index is contiguous, two terms side by side:
/// low[q], high[q] hold terms r + 2 q and r + 2 q + 1 of the first and last 16 outer indices. Zeros outside.
[[gnu::always_inline]] inline void load_pairs(const ProductOperand& m, int64_t outer, int64_t outer_end, int64_t r,
                                              int64_t r_end, int q, __m512i& low, __m512i& high) {
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);  // so that the interleaving keeps the columns in order
  const __mmask32 mask = first_words(outer_end - outer);
  const int64_t term = r + 2 * q;
  const uint16_t* p = element(m, outer, term);
  __m512i even = _mm512_setzero_si512(), odd = even;
  if (term < r_end) even = _mm512_maskz_loadu_epi16(mask, p);
  if (term + 1 < r_end) odd = _mm512_maskz_loadu_epi16(mask, p + m.ld);
  even = _mm512_permutexvar_epi64(order, even);
  odd = _mm512_permutexvar_epi64(order, odd);
  low = _mm512_unpacklo_epi16(even, odd);
  high = _mm512_unpackhi_epi16(even, odd);
}

[[gnu::always_inline]] inline void store_tile(const __m512i (&rows)[16], uint8_t* tile) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + 64 * i, rows[i]);
}

bool must_pack_a(const Product& p) { return !p.a.r_contiguous || p.r % kTerms != 0; }
bool reads_b_in_place(const Product& p) { return p.i <= kPanel && !p.b.r_contiguous; }

void pack_a(const Product& p, int64_t panel, void* packed) {
  auto* out = static_cast<uint8_t*>(packed);
  const int64_t i = panel * kPanel;
  for (int64_t r = 0; r < p.r; r += kTerms, out += kStepBytes) {
    __m512i low[16], high[16];
    if (p.a.r_contiguous) {
      load_rows(p.a, i, p.i, r, p.r, low);
      store_tile(low, out);
      load_rows(p.a, i + kTile, p.i, r, p.r, low);
      store_tile(low, out + kTileBytes);
      continue;
    }
    for (int q = 0; q < 16; ++q) {
      load_pairs(p.a, i, p.i, r, p.r, q, low[0], high[0]);
      _mm512_store_si512(out + 64 * q, low[0]);
      _mm512_store_si512(out + kTileBytes + 64 * q, high[0]);
    }
    for (int half = 0; half < 2; ++half) {
      uint8_t* tile = out + half * kTileBytes;
#pragma GCC unroll 16
      for (int q = 0; q < 16; ++q) low[q] = _mm512_load_si512(tile + 64 * q);
      transpose_dwords(low);
      store_tile(low, tile);
    }
  }
}

/// 32 terms from r on of 32 columns from j on, to the two tiles of a step.
[[gnu::always_inline]] inline void pack_b_step(const Product& p, int64_t j, int64_t j_end, int64_t r, int64_t r_end,
                                               uint8_t* tiles) {
  if (p.b.r_contiguous) {
    __m512i rows[16];
    for (int half = 0; half < 2; ++half) {
      load_rows(p.b, j + half * kTile, j_end, r, r_end, rows);
      transpose_dwords(rows);
      store_tile(rows, tiles + half * kTileBytes);
    }
    return;
  }
  for (int q = 0; q < 16; ++q) {
    __m512i low, high;
    load_pairs(p.b, j, j_end, r, r_end, q, low, high);
    _mm512_store_si512(tiles + 64 * q, low);
    _mm512_store_si512(tiles + kTileBytes + 64 * q, high);
  }
}

/// Walks along the rows of B, whichever way they run: the processor foresees that.
void pack_b(const Product& p, int64_t j0, int64_t columns, int64_t r0, int64_t r1, void* packed) {
  auto* out = static_cast<uint8_t*>(packed);
  const int64_t j1 = j0 + columns, panel_bytes = steps_of(r1 - r0) * kStepBytes;
  if (p.b.r_contiguous) {
    for (int64_t j = j0; j < j1; j += kPanel, out += panel_bytes)
      for (int64_t r = r0; r < r1; r += kTerms) pack_b_step(p, j, j1, r, r1, out + (r - r0) / kTerms * kStepBytes);
    return;
  }
  for (int64_t r = r0; r < r1; r += kTerms, out += kStepBytes)
    for (int64_t j = j0; j < j1; j += kPanel) pack_b_step(p, j, j1, r, r1, out + (j - j0) / kPanel * panel_bytes);
}

struct TileSource {
  const uint8_t* first;
  int64_t second, row_bytes, step_bytes;  ///< second: from the first tile to the one 16 rows below
};

template <int kRows, int kColumns>
[[gnu::always_inline]] inline void multiply_step(const TileSource& a, const uint8_t* b) {
  const auto a_bytes = static_cast<size_t>(a.row_bytes);
  _tile_loadd(4, a.first, a_bytes);
  _tile_loadd(6, b, 64);
  if constexpr (kRows == 2) _tile_loadd(5, a.first + a.second, a_bytes);
  if constexpr (kColumns == 2) _tile_loadd(7, b + kTileBytes, 64);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kRows == 2) _tile_dpbf16ps(2, 5, 6);
  if constexpr (kColumns == 2) _tile_dpbf16ps(1, 4, 7);
  if constexpr (kRows == 2 && kColumns == 2) _tile_dpbf16ps(3, 5, 7);
}

/// The sums of one call, in tiles 0 1 / 2 3: from zero or from memory, and back.
template <int kRows, int kColumns>
struct TileSums {
  float* c;
  int64_t ldc;

  [[gnu::always_inline]] void load(bool first) const {
    const auto bytes = static_cast<size_t>(ldc) * sizeof(float);
    float* below = c + kTile * ldc;
    if (first) {
      _tile_zero(0);
      if constexpr (kColumns == 2) _tile_zero(1);
      if constexpr (kRows == 2) _tile_zero(2);
      if constexpr (kRows == 2 && kColumns == 2) _tile_zero(3);
    } else {
      _tile_loadd(0, c, bytes);
      if constexpr (kColumns == 2) _tile_loadd(1, c + kTile, bytes);
      if constexpr (kRows == 2) _tile_loadd(2, below, bytes);
      if constexpr (kRows == 2 && kColumns == 2) _tile_loadd(3, below + kTile, bytes);
    }
  }

  [[gnu::always_inline]] void store() const {
    const auto bytes = static_cast<size_t>(ldc) * sizeof(float);
    float* below = c + kTile * ldc;
    _tile_stored(0, c, bytes);
    if constexpr (kColumns == 2) _tile_stored(1, c + kTile, bytes);
    if constexpr (kRows == 2) _tile_stored(2, below, bytes);
    if constexpr (kRows == 2 && kColumns == 2) _tile_stored(3, below + kTile, bytes);
  }
};

/// c (16 kRows x 16 kColumns) += A B over `steps` steps of packed B. The sums stay in their tiles all along: writing them
/// out now and then, so that A and B come from the first-level cache, costs more.
template <int kRows, int kColumns>
void multiply_packed(TileSource a, const uint8_t* b, int64_t steps, TileSums<kRows, kColumns> sums, bool first,
                     ProductAhead ahead) {
  sums.load(first);
  for (int64_t step = 0; step < steps; ++step) {
    multiply_step<kRows, kColumns>(a, b);
    for (int64_t row = 0; row < ahead.rows; ++row)
      for (int64_t line = 0; line < ahead.lines; ++line)
        _mm_prefetch(reinterpret_cast<const char*>(ahead.data + row * ahead.row_bytes + line * 64), _MM_HINT_T1);
    a.first += a.step_bytes;
    b += kStepBytes;
    ahead.data += ahead.step_bytes;
  }
  sums.store();
}

TileSource source_of(const Product& p, const ProductBlock& block, int64_t& panel_bytes) {
  if (block.packed_a) {
    panel_bytes = steps_of(p.r) * kStepBytes;
    return {static_cast<const uint8_t*>(block.packed_a) + block.r0 / kTerms * kStepBytes, kTileBytes, 64, kStepBytes};
  }
  panel_bytes = kPanel * p.a.ld * 2;
  return {reinterpret_cast<const uint8_t*>(element(p.a, block.i0, block.r0)), kTile * p.a.ld * 2, p.a.ld * 2, 64};
}

/// Up to 32 rows and B in place, its rows along j: every step of B is interleaved just before its use, by vector
/// instructions that run beside the tile products.
template <int kRows, int kColumns>
void multiply_in_place(const Product& p, const ProductBlock& block, int64_t j, int64_t r0, int64_t r1, TileSource a,
                       bool first) {
  constexpr int64_t kSlots = 4, kEarly = 2, kAhead = 6 * kTerms;
  alignas(64) uint8_t ring[kSlots][kStepBytes];
  const int64_t steps = steps_of(r1 - r0), j_end = block.j0 + block.columns;
  const TileSums<kRows, kColumns> sums{block.c + (j - block.j0), block.ldc};
  const bool ask = (j - block.j0) % (2 * kPanel) == 0;  // for this panel and the next one
  for (int64_t step = 0; step < kEarly && step < steps; ++step)
    pack_b_step(p, j, j_end, r0 + step * kTerms, r1, ring[step % kSlots]);
  sums.load(first);
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t r = r0 + step * kTerms;
    if (step + kEarly < steps) pack_b_step(p, j, j_end, r + kEarly * kTerms, r1, ring[(step + kEarly) % kSlots]);
    multiply_step<kRows, kColumns>(a, ring[step % kSlots]);
    a.first += a.step_bytes;
    if (ask && r + kAhead + kTerms <= p.r) {
      const auto* line = reinterpret_cast<const char*>(element(p.b, j, r + kAhead));
      for (int64_t row = 0; row < kTerms; ++row, line += p.b.ld * 2) {
        _mm_prefetch(line, _MM_HINT_T0);
        _mm_prefetch(line + 64, _MM_HINT_T0);
      }
    }
  }
  sums.store();
}

void multiply_few_rows(const Product& p, const ProductBlock& block) {
  constexpr int64_t kTermsAtATime = 16 * kTerms;  // so that the lines asked for are still near for the next panel
  int64_t unused = 0;
  TileSource a = source_of(p, block, unused);
  int64_t r0 = block.r0;
  do {
    const int64_t r1 = r0 + kTermsAtATime < block.r1 ? r0 + kTermsAtATime : block.r1;
    const bool first = block.first && r0 == block.r0;
    for (int64_t j = block.j0; j < block.j0 + block.columns; j += kPanel) {
      const bool two_columns = block.j0 + block.columns - j > kTile;
      if (block.rows > kTile)
        two_columns ? multiply_in_place<2, 2>(p, block, j, r0, r1, a, first)
                    : multiply_in_place<2, 1>(p, block, j, r0, r1, a, first);
      else
        two_columns ? multiply_in_place<1, 2>(p, block, j, r0, r1, a, first)
                    : multiply_in_place<1, 1>(p, block, j, r0, r1, a, first);
    }
    a.first += steps_of(r1 - r0) * a.step_bytes;
    r0 = r1;
  } while (r0 < block.r1);
}

void multiply(const Product& p, const ProductBlock& block) {
  if (!block.packed_b) return multiply_few_rows(p, block);
  const int64_t steps = steps_of(block.r1 - block.r0);
  const int64_t calls = (block.columns + kPanel - 1) / kPanel * ((block.rows + kPanel - 1) / kPanel);
  int64_t panel_bytes = 0, call = 0;
  const TileSource a = source_of(p, block, panel_bytes);
  for (int64_t j = 0; j < block.columns; j += kPanel) {
    const uint8_t* b = static_cast<const uint8_t*>(block.packed_b) + j / kPanel * steps * kStepBytes;
    const bool two_columns = block.columns - j > kTile;
    for (int64_t i = 0; i < block.rows; i += kPanel, ++call) {
      TileSource panel = a;
      panel.first += i / kPanel * panel_bytes;
      ProductAhead ahead = block.ahead;
      const int64_t begin = ahead.rows * call / calls;
      ahead.rows = ahead.rows * (call + 1) / calls - begin;
      ahead.data += begin * ahead.row_bytes;
      float* c = block.c + i * block.ldc + j;
      if (block.rows - i > kTile)
        two_columns ? multiply_packed<2, 2>(panel, b, steps, {c, block.ldc}, block.first, ahead)
                    : multiply_packed<2, 1>(panel, b, steps, {c, block.ldc}, block.first, ahead);
      else
        two_columns ? multiply_packed<1, 2>(panel, b, steps, {c, block.ldc}, block.first, ahead)
                    : multiply_packed<1, 1>(panel, b, steps, {c, block.ldc}, block.first, ahead);
    }
  }
}

void store(const Product& p, const ProductBlock& block, float* scratch) { store_block_avx512(p, block, scratch, true); }

void begin() {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static constexpr Config kConfig;
  _tile_loadconfig(&kConfig);
}

void end() { _tile_release(); }
}  // namespace

const ProductEngine& amx_engine() {
  static constexpr ProductEngine kEngine = {
      .panel_i = kPanel, .panel_j = kPanel, .r_step = kTerms, .row_step = kTile, .block_i = kBlock, .block_j = kBlock,
      .group_j = kBlock, .element_bytes = 2, .ahead_terms = kTerms, .b_bytes = 1280 * 1024, .must_pack_a = must_pack_a,
      .reads_b_in_place = reads_b_in_place, .pack_a = pack_a,
      .pack_b = pack_b, .multiply = multiply, .store = store, .begin = begin, .end = end};
  return kEngine;
}

}  // namespace permafrost
