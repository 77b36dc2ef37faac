#include <immintrin.h>

#include "core/kernels/linear_tile_avx512.h"
#include "core/kernels/linear_tiles_amx.h"
#include "core/kernels/vector_math_avx512.h"

// bf16 products on AMX. A tile of A: 16 rows of 32 terms, as they lie in a row-major matrix. A tile of B: 16 columns of
// 32 terms, two terms of a column side by side. Packed panels are 32 wide: for every 32 terms two tiles of 1024 bytes.
namespace permafrost {

namespace {
using amx::kTileBytes;
using amx::TileSums;
using amx::with_tiles;
constexpr int64_t kTile = amx::kTileRows, kPanel = 32, kTerms = 32, kBlock = 64;
constexpr int64_t kStepBytes = 2 * kTileBytes;

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

/// Two rows of 32 side by side: low and high hold their first and last 16 columns, two terms of a column in a dword.
[[gnu::always_inline]] inline void interleave(__m512i even, __m512i odd, uint8_t* low, uint8_t* high) {
  const __m512i order =
      _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);  // so that the interleaving keeps the columns in order
  even = _mm512_permutexvar_epi64(order, even);
  odd = _mm512_permutexvar_epi64(order, odd);
  _mm512_store_si512(low, _mm512_unpacklo_epi16(even, odd));
  _mm512_store_si512(high, _mm512_unpackhi_epi16(even, odd));
}

/// Terms r ... r + 31 of 32 outer indices of a matrix whose outer index is contiguous: two tiles, for the first and
/// last 16 outer indices, whose row q holds terms r + 2 q and r + 2 q + 1 side by side. Zeros outside.
[[gnu::always_inline]] inline void interleave_rows(const ProductOperand& m, int64_t outer, int64_t outer_end, int64_t r,
                                                   int64_t r_end, uint8_t* tiles) {
  const uint16_t* p = element(m, outer, r);
  const int64_t ld = m.ld;
  if (outer + kPanel <= outer_end && r + kTerms <= r_end) {
#pragma GCC unroll 4
    for (int q = 0; q < 16; ++q, p += 2 * ld)
      interleave(_mm512_loadu_si512(p), _mm512_loadu_si512(p + ld), tiles + 64 * q, tiles + kTileBytes + 64 * q);
    return;
  }
  const __mmask32 mask = first_words(outer_end - outer);
  for (int q = 0; q < 16; ++q, r += 2) {
    __m512i even = _mm512_setzero_si512(), odd = even;
    if (r < r_end) even = _mm512_maskz_loadu_epi16(mask, element(m, outer, r));
    if (r + 1 < r_end) odd = _mm512_maskz_loadu_epi16(mask, element(m, outer, r + 1));
    interleave(even, odd, tiles + 64 * q, tiles + kTileBytes + 64 * q);
  }
}

[[gnu::always_inline]] inline void store_tile(const __m512i (&rows)[16], uint8_t* tile) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + 64 * i, rows[i]);
}

bool must_pack_a(const Product& p) { return !p.a.r_contiguous || p.r % kTerms != 0; }
bool packs_meanwhile(const Product&, bool near) { return near; }
bool reads_b_in_place(const Product& p) { return p.i <= kPanel && !p.b.r_contiguous; }

/// 32 terms from r on of 32 rows from i on, to the two tiles of a step.
[[gnu::always_inline]] inline void pack_a_step(const Product& p, int64_t i, int64_t r, uint8_t* tiles) {
  __m512i rows[16];
  if (!p.a.r_contiguous) interleave_rows(p.a, i, p.i, r, p.r, tiles);
  for (int half = 0; half < 2; ++half) {
    uint8_t* tile = tiles + half * kTileBytes;
    if (p.a.r_contiguous) {
      load_rows(p.a, i + half * kTile, p.i, r, p.r, rows);
    } else {
#pragma GCC unroll 16
      for (int q = 0; q < 16; ++q) rows[q] = _mm512_load_si512(tile + 64 * q);
      transpose_dwords(rows);
    }
    store_tile(rows, tile);
  }
}

/// As pack_b, along the rows of A.
void pack_a(const Product& p, int64_t panel, int64_t count, void* packed) {
  auto* out = static_cast<uint8_t*>(packed);
  const int64_t panel_bytes = steps_of(p.r) * kStepBytes;
  if (p.a.r_contiguous) {
    for (int64_t t = 0; t < count; ++t)
      for (int64_t r = 0; r < p.r; r += kTerms)
        pack_a_step(p, (panel + t) * kPanel, r, out + t * panel_bytes + r / kTerms * kStepBytes);
    return;
  }
  for (int64_t r = 0; r < p.r; r += kTerms, out += kStepBytes)
    for (int64_t t = 0; t < count; ++t) pack_a_step(p, (panel + t) * kPanel, r, out + t * panel_bytes);
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
  interleave_rows(p.b, j, j_end, r, r_end, tiles);
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

/// The tiles of one step: A in 4 5, B in 6 7. Loading those of the next step as soon as the last product that reads a
/// register has been issued is 10 % faster than loading all four at the head of a step.
template <int kRows, int kColumns>
struct StepTiles {
  [[gnu::always_inline]] static void load_a(const TileSource& a) {
    _tile_loadd(4, a.first, static_cast<size_t>(a.row_bytes));
    if constexpr (kRows == 2) _tile_loadd(5, a.first + a.second, static_cast<size_t>(a.row_bytes));
  }
  [[gnu::always_inline]] static void load(const TileSource& a, const uint8_t* b) {
    _tile_loadd(6, b, 64);
    if constexpr (kColumns == 2) _tile_loadd(7, b + kTileBytes, 64);
    load_a(a);
  }
  [[gnu::always_inline]] static void multiply() {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRows == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kColumns == 2) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kRows == 2 && kColumns == 2) _tile_dpbf16ps(3, 5, 7);
  }
  /// multiply() of the tiles loaded, and load(a, b) in between.
  [[gnu::always_inline]] static void multiply_and_load(const TileSource& a, const uint8_t* b) {
    if constexpr (kRows == 2 && kColumns == 2) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(4, a.first, static_cast<size_t>(a.row_bytes));
      _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(5, a.first + a.second, static_cast<size_t>(a.row_bytes));
      _tile_loadd(7, b + kTileBytes, 64);
    } else {
      multiply();
      load(a, b);
    }
  }
};

/// What is done beside the products of a block, a little with every step: the block before is stored, and lines of y
/// that this block will be stored to are asked for. A store to a line of which the core is not the owner waits for it.
struct Meanwhile {
  ProductStore store;
  int64_t lines = 0;  ///< stored with a step
  const std::byte* row = nullptr;
  int64_t row_bytes = 0, rows = 0, row_lines = 0, line = 0;
  int64_t asked = 0;  ///< lines asked for with a step

  [[gnu::always_inline]] void step() {
    for (int64_t n = asked; n > 0 && rows > 0; --n) {
      _mm_prefetch(reinterpret_cast<const char*>(row + line * 64), _MM_HINT_ET0);
      if (++line < row_lines) continue;
      line = 0;
      row += row_bytes;
      --rows;
    }
    if (lines > 0 && !store.done()) store.some(store, lines);
  }
};

/// `steps`: how often step() will be called.
Meanwhile meanwhile_of(const Product& p, const ProductBlock& block, int64_t steps) {
  Meanwhile m;
  const ProductOutput& out = p.out;
  if (block.finished) {
    m.store = begin_store_avx512(p, *block.finished, nullptr, true);
    m.lines = steps == 0 ? 0 : (product_lines(m.store.rows, m.store.columns) + steps - 1) / steps;
  }
  if (block.last && !out.transposed && steps > 0) {
    const int64_t size = out.dtype == DType::kF32 ? 4 : 2;
    m.row = static_cast<const std::byte*>(out.y) + (block.i0 * out.ld + block.j0) * size;
    m.row_bytes = out.ld * size;
    m.rows = block.rows;
    m.row_lines = (block.columns * size + 63) / 64;
    m.asked = (m.rows * m.row_lines + steps - 1) / steps;
  }
  return m;
}

/// c (16 kRows x 16 kColumns) += A B over `steps` steps of packed B. The sums stay in their tiles all along: writing
/// them out now and then, so that A and B come from the first-level cache, costs more.
template <int kRows, int kColumns>
[[gnu::noinline]] void multiply_packed(TileSource a, const uint8_t* b, int64_t steps, TileSums<kRows, kColumns> sums,
                                       bool first, ProductAhead ahead, Meanwhile& meanwhile) {
  using Tiles = StepTiles<kRows, kColumns>;
  sums.load(first);
  if (steps > 0) {
    Tiles::load(a, b);
    for (int64_t step = 1; step < steps; ++step) {
      a.first += a.step_bytes;
      b += kStepBytes;
      Tiles::multiply_and_load(a, b);
      for (int64_t row = 0; row < ahead.rows; ++row)
        for (int64_t line = 0; line < ahead.lines; ++line)
          _mm_prefetch(reinterpret_cast<const char*>(ahead.data + row * ahead.row_bytes + line * 64), _MM_HINT_T1);
      ahead.data += ahead.step_bytes;
      meanwhile.step();
    }
    Tiles::multiply();
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

/// A panel of B where it lies, and where to put it.
struct InPlace {
  int64_t j, j_end, r0, r1;
  uint8_t* tiles;  ///< interleaved steps, `slots` of them in turn
  int64_t slots;
  bool ask;  ///< whether to ask for the lines of this and the next panel ahead
};

/// As multiply_packed, from B in place: every step of B is packed two steps before its use, by vector instructions that
/// run beside the tile products.
template <int kRows, int kColumns>
[[gnu::noinline]] void multiply_in_place(const Product& p, TileSource a, const InPlace& b,
                                         TileSums<kRows, kColumns> sums, bool first) {
  constexpr int64_t kEarly = 2, kAhead = 6 * kTerms;
  const int64_t steps = steps_of(b.r1 - b.r0);
  const auto pack = [&](int64_t step) {
    pack_b_step(p, b.j, b.j_end, b.r0 + step * kTerms, b.r1, b.tiles + step % b.slots * kStepBytes);
  };
  for (int64_t step = 0; step < kEarly && step < steps; ++step) pack(step);
  sums.load(first);
  for (int64_t step = 0; step < steps; ++step) {
    if (step + kEarly < steps) pack(step + kEarly);
    StepTiles<kRows, kColumns>::load(a, b.tiles + step % b.slots * kStepBytes);
    StepTiles<kRows, kColumns>::multiply();
    a.first += a.step_bytes;
    const int64_t r = b.r0 + step * kTerms + kAhead;
    if (b.ask && r + kTerms <= p.r) {
      const auto* line = reinterpret_cast<const char*>(element(p.b, b.j, r));
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
  constexpr int64_t kSlots = 4;
  alignas(64) uint8_t ring[kSlots * kStepBytes];
  int64_t unused = 0;
  TileSource a = source_of(p, block, unused);
  int64_t r0 = block.r0;
  do {
    const int64_t r1 = r0 + kTermsAtATime < block.r1 ? r0 + kTermsAtATime : block.r1;
    const bool first = block.first && r0 == block.r0;
    for (int64_t j = 0; j < block.columns; j += kPanel) {
      const InPlace b{block.j0 + j, block.j0 + block.columns, r0, r1, ring, kSlots, j % (2 * kPanel) == 0};
      with_tiles(block.rows, block.columns - j, [&]<int kRows, int kColumns>() {
        multiply_in_place<kRows, kColumns>(p, a, b, {block.c + j, block.ldc}, first);
      });
    }
    a.first += steps_of(r1 - r0) * a.step_bytes;
    r0 = r1;
  } while (r0 < block.r1);
}

void multiply(const Product& p, const ProductBlock& block) {
  if (!block.packed_b) {
    if (block.finished) store_block_avx512(p, *block.finished, nullptr, true);
    return multiply_few_rows(p, block);
  }
  const int64_t steps = steps_of(block.r1 - block.r0);
  const int64_t calls = (block.columns + kPanel - 1) / kPanel * ((block.rows + kPanel - 1) / kPanel);
  int64_t panel_bytes = 0, call = 0;
  const TileSource a = source_of(p, block, panel_bytes);
  const int64_t packing = block.pack_b ? (block.columns + kPanel - 1) / kPanel : 0;
  Meanwhile meanwhile = meanwhile_of(p, block, steps == 0 ? 0 : (calls - packing) * (steps - 1));
  for (int64_t j = 0; j < block.columns; j += kPanel) {
    uint8_t* b = static_cast<uint8_t*>(block.packed_b) + j / kPanel * steps * kStepBytes;
    for (int64_t i = 0; i < block.rows; i += kPanel, ++call) {
      TileSource panel = a;
      panel.first += i / kPanel * panel_bytes;
      ProductAhead ahead = block.ahead;
      const int64_t begin = ahead.rows * call / calls;
      ahead.rows = ahead.rows * (call + 1) / calls - begin;
      ahead.data += begin * ahead.row_bytes;
      with_tiles(block.rows - i, block.columns - j, [&]<int kRows, int kColumns>() {
        const TileSums<kRows, kColumns> sums{block.c + i * block.ldc + j, block.ldc};
        if (block.pack_b && i == 0)
          multiply_in_place(p, panel, {block.j0 + j, block.j0 + block.columns, block.r0, block.r1, b, steps, false},
                            sums, block.first);
        else
          multiply_packed(panel, b, steps, sums, block.first, ahead, meanwhile);
      });
    }
  }
  if (block.finished)
    meanwhile.store.some(meanwhile.store, product_lines(meanwhile.store.rows, meanwhile.store.columns));
}

void store(const Product& p, const ProductBlock& block, float* scratch) { store_block_avx512(p, block, scratch, true); }

void begin() { amx::configure_tiles(); }
void end() { _tile_release(); }
}  // namespace

const ProductEngine& amx_engine() {
  static constexpr ProductEngine kEngine = {.panel_i = kPanel,
                                            .panel_j = kPanel,
                                            .r_step = kTerms,
                                            .row_step = kTile,
                                            .block_i = kBlock,
                                            .block_j = kBlock,
                                            .group_j = kBlock,
                                            .narrow_j = 128,
                                            .element_bytes = 2,
                                            .ahead_terms = kTerms,
                                            .stores_meanwhile = true,
                                            .b_bytes = 896 * 1024,
                                            .copies_a = false,
                                            .must_pack_a = must_pack_a,
                                            .packs_meanwhile = packs_meanwhile,
                                            .reads_b_in_place = reads_b_in_place,
                                            .pack_a = pack_a,
                                            .pack_b = pack_b,
                                            .multiply = multiply,
                                            .store = store,
                                            .begin = begin,
                                            .end = end};
  return kEngine;
}

}  // namespace permafrost
