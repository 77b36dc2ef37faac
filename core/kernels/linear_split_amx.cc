#include <immintrin.h>

#include "core/kernels/linear_tile_avx512.h"
#include "core/kernels/linear_tiles_amx.h"
#include "core/kernels/vector_math_avx512.h"

// f32 products on AMX: x = x1 + x2 + x3 exactly, parts of 8 bits each as bf16, and x y = x1 y1 + x1 y2 + x2 y1 + x2 y2
// + x1 y3 + x3 y1 but for 2^-24 of it; six tile products per 32 terms, all into the same f32 sums. [Note: linear] Both
// operands are split into panels 32 wide: for every 32 terms, three parts of two tiles. Word l of a row of A, and row
// l of B, hold terms l and 16 + l side by side: two registers of f32 become one of pairs without moving lanes.
namespace permafrost {

namespace {
using amx::kTileBytes;
using amx::TileSums;

constexpr int64_t kTile = amx::kTileRows, kPanel = 32, kTerms = 32, kGroup = 32, kNarrow = 256, kBlockColumns = 768,
                  kManyColumns = 1024;
constexpr int64_t kPartBytes = 2 * kTileBytes, kStepBytes = 3 * kPartBytes;
constexpr int64_t kUnits = 8;           // of work to split 32 terms of a panel
constexpr int64_t kFar = 4, kNear = 2;  // steps from what is split to what is asked for: along rows, across
constexpr int64_t kFewRowsTerms =
    512;                      // of B in place at a time, so that pages and lines are still near for the next panel
constexpr int64_t kLead = 2;  // steps between splitting and use, where both happen in one call
constexpr int64_t kRing = 4;  // steps kept of what is used once

int64_t steps_of(int64_t terms) { return (terms + kTerms - 1) / kTerms; }

int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

/// The compiler knows nothing of what tile loads read.
[[gnu::always_inline]] inline void publish() { asm volatile("" ::: "memory"); }

/// 16 numbers u and 16 numbers v as pairs of bf16 parts: u in the low half of a word, v in the high one.
/// A part is the rest rounded to 8 bits, ties away from zero; the third is what then is left, 7 bits, exactly. NaN
/// stays NaN in the third at least; what rounds to infinity leaves a rest that is NaN.
[[gnu::always_inline]] inline void split(__m512 u, __m512 v, uint8_t* tiles) {
  const __m512i half = _mm512_set1_epi32(0x8000), high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
#pragma GCC unroll 2
  for (int part = 0; part < 2; ++part) {
    const __m512i u1 = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(u), half), high);
    const __m512i v1 = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(v), half), high);
    _mm512_store_si512(tiles + part * kPartBytes, _mm512_or_si512(_mm512_srli_epi32(u1, 16), v1));
    u = _mm512_sub_ps(u, _mm512_castsi512_ps(u1));
    v = _mm512_sub_ps(v, _mm512_castsi512_ps(v1));
  }
  _mm512_store_si512(tiles + 2 * kPartBytes, _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(u), 16),
                                                             _mm512_and_si512(_mm512_castps_si512(v), high)));
}

[[gnu::always_inline]] inline __m512 load(DType dtype, const std::byte* p, __mmask16 mask) {
  if (dtype == DType::kF32) return _mm512_maskz_loadu_ps(mask, p);
  if (dtype == DType::kBF16) return avx512::from_bf16(_mm256_maskz_loadu_epi16(mask, p));
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
}

/// Splitting of one panel, in units that fit between tile products: 8 for 32 terms.
struct PanelSplit {
  const std::byte* data = nullptr;  ///< element (first outer index, first term)
  DType dtype = DType::kF32;
  bool r_contiguous = true;
  bool turned = false;  ///< lanes in memory are not those of the tile
  int64_t size = 4, ld = 0;
  int64_t outer = 0, terms = 0;  ///< how many there are, from data on
  int64_t ahead = 0;             ///< steps from what is loaded to what is asked for; 0: nothing
  int64_t next_panel = 0;        ///< bytes from here to the panel asked for behind this one
  int64_t whole_steps = 0;       ///< f32, nothing outside the matrix
  uint8_t* out = nullptr;
  int64_t step_mask = -1;  ///< step s goes to place s & step_mask
  alignas(64) float lanes[2][kTile][kTile];

  /// Where vector 0 of half a panel of 32 terms is, and how far the next one and the other 16 terms are. A vector is 16
  /// terms of an outer index, or 16 outer indices of a term.
  struct Place {
    const std::byte* p;
    int64_t next, second;
  };
  [[gnu::always_inline]] Place place(int64_t step, int64_t half) const {
    if (r_contiguous) return {data + half * kTile * ld + step * kTerms * size, ld, kTile * size};
    return {data + step * kTerms * ld + half * kTile * size, ld, kTile * ld};
  }

  /// Vector q of the first or the last 16 terms. Zeros outside.
  [[gnu::always_inline]] __m512 load_at(const Place& at, int64_t step, int64_t half, int64_t q, bool second) const {
    const int64_t left = terms - step * kTerms - second * kTile, right = outer - half * kTile;
    if (q >= (r_contiguous ? right : left)) return _mm512_setzero_ps();
    return permafrost::load(dtype, at.p + q * at.next + second * at.second,
                            avx512::first_lanes(r_contiguous ? left : right));
  }

  /// Bytes from what a step loads to what it asks for.
  [[gnu::always_inline]] int64_t asked(int64_t step) const {
    const int64_t bytes = r_contiguous ? kTerms * size : kTerms * ld, steps = steps_of(terms);
    return step + ahead < steps ? ahead * bytes : next_panel + (ahead - steps) * bytes;
  }
  [[gnu::always_inline]] static void ask(const std::byte* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }

  /// The vectors of the first or the last 16 terms, transposed.
  [[gnu::always_inline]] void turn(int64_t step, int64_t half, bool second) {
    const Place at = place(step, half);
    const std::byte* p = at.p + second * at.second;
    __m512i rows[kTile];
    if (step < whole_steps) {
#pragma GCC unroll 16
      for (int q = 0; q < kTile; ++q) rows[q] = _mm512_loadu_si512(p + q * at.next);
      if (ahead > 0) {
        const std::byte* line = p + asked(step);
        for (int q = 0; q < kTile; ++q) ask(line + q * at.next);
      }
    } else {
      alignas(64) float edge[kTile][kTile];
      for (int q = 0; q < kTile; ++q) _mm512_store_ps(edge[q], load_at(at, step, half, q, second));
#pragma GCC unroll 16
      for (int q = 0; q < kTile; ++q) rows[q] = _mm512_load_si512(edge[q]);
    }
    transpose_dwords(rows);
#pragma GCC unroll 16
    for (int q = 0; q < kTile; ++q) _mm512_store_si512(lanes[second][q], rows[q]);
  }

  [[gnu::always_inline]] void unit(int64_t index) {
    const int64_t step = index / kUnits, half = index / 4 % 2, part = index % 4;
    if (half * kTile >= outer) return;  // no tile of it is used
    uint8_t* tile = out + (step & step_mask) * kStepBytes + half * kTileBytes;
    if (turned) {
      if (part < 2) return turn(step, half, part == 1);
      const int64_t q = (part - 2) * 8;
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i)
        split(_mm512_load_ps(lanes[0][q + i]), _mm512_load_ps(lanes[1][q + i]), tile + (q + i) * 64);
      return;
    }
    const int64_t q = part * 4;
    const Place at = place(step, half);
    tile += q * 64;
    if (r_contiguous && half * kTile + q >= outer) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) split(_mm512_setzero_ps(), _mm512_setzero_ps(), tile + i * 64);
      return;
    }
    if (step < whole_steps) {
      const std::byte* p = at.p + q * at.next;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        split(_mm512_loadu_ps(p + i * at.next), _mm512_loadu_ps(p + i * at.next + at.second), tile + i * 64);
      if (ahead > 0) {
        const std::byte* line = p + asked(step);
        for (int i = 0; i < 4; ++i, line += at.next) ask(line), ask(line + at.second);
      }
      return;
    }
    for (int i = 0; i < 4; ++i)
      split(load_at(at, step, half, q + i, false), load_at(at, step, half, q + i, true), tile + i * 64);
  }

  [[gnu::noinline]] void units(int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) unit(i);
  }
};

/// What the processor does beside the tile products of a call, in 6 slots a step.
struct Background {
  PanelSplit *own_a = nullptr, *own_b = nullptr;  ///< of this call, kLead steps ahead of their use
  PanelSplit* next_a = nullptr;                   ///< takes the place of this call's A, which no other needs
  const char* ask = nullptr;                      ///< rows to be read soon, two lines a step
  int64_t ask_rows = 0, ask_stride = 0;
  char* c = nullptr;  ///< rows to be written soon, two lines each
  int64_t c_rows = 0, c_stride = 0;

  void start(int64_t steps) {
    const int64_t lead = at_most(steps, kLead);
    if (own_a) own_a->units(0, lead * kUnits);
    if (own_b) own_b->units(0, lead * kUnits);
    publish();
  }

  template <int kSlot>
  [[gnu::always_inline]] void slot(int64_t step, int64_t steps) {
    constexpr int64_t kBegin = (kUnits * kSlot + 5) / 6, kEnd = (kUnits * (kSlot + 1) + 5) / 6;
    const int64_t later = (step + kLead) * kUnits, done = (step - 1) * kUnits;
    if (step + kLead < steps) {
      if (own_a) own_a->units(later + kBegin, later + kEnd);
      if (own_b) own_b->units(later + kBegin, later + kEnd);
    }
    if (next_a && step > 0) next_a->units(done + kBegin, done + kEnd);
  }

  void memory(int64_t step, int64_t steps) {
    const char* line = ask + step * kTerms * 4;
    for (int64_t row = 0; row < ask_rows; ++row, line += ask_stride) {
      amx::ask(line);
      amx::ask(line + 64);
    }
    const int64_t row = step * kPanel / steps, end = at_most((step + 1) * kPanel / steps, c_rows);
    for (char* to = c + row * c_stride; to < c + end * c_stride; to += c_stride) {
      amx::ask_to_own(to);
      amx::ask_to_own(to + 64);
    }
  }

  void finish(int64_t steps) {
    if (next_a && steps > 0) next_a->units((steps - 1) * kUnits, steps * kUnits);
  }
};

/// Panels of a call: the step s of one at data + (s & mask) kStepBytes.
struct SplitPanel {
  const uint8_t* data;
  int64_t mask;
  const uint8_t* part(int64_t step, int64_t number) const {
    return data + (step & mask) * kStepBytes + (number - 1) * kPartBytes;
  }
};

/// The four products of one part of A, in tiles 4 5, with one of B, in 6 7; a tile is loaded anew as soon as the last
/// product that reads it has been issued.
template <int kRows, int kColumns>
struct PartTiles {
  [[gnu::always_inline]] static void load_a(const uint8_t* a) {
    _tile_loadd(4, a, 64);
    if constexpr (kRows == 2) _tile_loadd(5, a + kTileBytes, 64);
  }
  [[gnu::always_inline]] static void load_b(const uint8_t* b) {
    _tile_loadd(6, b, 64);
    if constexpr (kColumns == 2) _tile_loadd(7, b + kTileBytes, 64);
  }
  [[gnu::always_inline]] static void multiply_and_load_a(const uint8_t* a) {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kColumns == 2) _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(4, a, 64);
    if constexpr (kRows == 2) {
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kColumns == 2) _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(5, a + kTileBytes, 64);
    }
  }
  [[gnu::always_inline]] static void multiply_and_load_b(const uint8_t* b) {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRows == 2) _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(6, b, 64);
    if constexpr (kColumns == 2) {
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (kRows == 2) _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(7, b + kTileBytes, 64);
    }
  }
  [[gnu::always_inline]] static void multiply_and_load(const uint8_t* a, const uint8_t* b) {
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRows == 2) _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(6, b, 64);
    if constexpr (kColumns == 2) _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(4, a, 64);
    if constexpr (kRows == 2) {
      if constexpr (kColumns == 2) _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(5, a + kTileBytes, 64);
    }
    if constexpr (kColumns == 2) _tile_loadd(7, b + kTileBytes, 64);
  }
};

/// c (16 kRows x 16 kColumns) += A B over `steps` steps. The order of the six products, x1 y3, x1 y2, x2 y2, x2 y1,
/// x3 y1, x1 y1, changes one operand at a time and puts the largest last, so that little is rounded beside it. x is A,
/// or B where kSwapped: forward gives the same bits either way.
template <int kRows, int kColumns, bool kSwapped>
[[gnu::noinline]] void multiply_steps(SplitPanel a, SplitPanel b, int64_t steps, TileSums<kRows, kColumns> sums,
                                      bool first, Background& work) {
  using Tiles = PartTiles<kRows, kColumns>;
  work.start(steps);
  sums.load(first);
  constexpr int64_t kFirstA = kSwapped ? 3 : 1, kFirstB = kSwapped ? 1 : 3;
  if (steps > 0) {
    Tiles::load_a(a.part(0, kFirstA));
    Tiles::load_b(b.part(0, kFirstB));
  }
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t next = step + 1 < steps ? step + 1 : step;
    if constexpr (kSwapped) {
      Tiles::multiply_and_load_a(a.part(step, 2));
      work.slot<0>(step, steps);
      Tiles::multiply_and_load_b(b.part(step, 2));
      work.slot<1>(step, steps);
      Tiles::multiply_and_load_a(a.part(step, 1));
      work.slot<2>(step, steps);
      Tiles::multiply_and_load_b(b.part(step, 3));
      work.slot<3>(step, steps);
      Tiles::multiply_and_load_b(b.part(step, 1));
    } else {
      Tiles::multiply_and_load_b(b.part(step, 2));
      work.slot<0>(step, steps);
      Tiles::multiply_and_load_a(a.part(step, 2));
      work.slot<1>(step, steps);
      Tiles::multiply_and_load_b(b.part(step, 1));
      work.slot<2>(step, steps);
      Tiles::multiply_and_load_a(a.part(step, 3));
      work.slot<3>(step, steps);
      Tiles::multiply_and_load_a(a.part(step, 1));
    }
    work.slot<4>(step, steps);
    Tiles::multiply_and_load(a.part(next, kFirstA), b.part(next, kFirstB));
    work.slot<5>(step, steps);
    work.memory(step, steps);
    publish();
  }
  work.finish(steps);
  publish();
  sums.store();
}

/// `outer` indices from the first one on, terms [r0, r1).
void aim(PanelSplit& panel, const ProductOperand& m, int64_t first, int64_t outer, int64_t r0, int64_t r1) {
  panel.dtype = m.dtype;
  panel.size = m.dtype == DType::kF32 ? 4 : 2;
  panel.r_contiguous = m.r_contiguous;
  panel.ld = m.ld * panel.size;
  panel.data = static_cast<const std::byte*>(m.data) +
               (m.r_contiguous ? first * panel.ld + r0 * panel.size : r0 * panel.ld + first * panel.size);
  panel.outer = outer;
  panel.terms = r1 - r0;
  panel.ahead = m.r_contiguous ? kFar : kNear;
  panel.next_panel = kPanel * (m.r_contiguous ? panel.ld : panel.size);
  panel.whole_steps = m.dtype == DType::kF32 && outer >= kPanel ? panel.terms / kTerms : 0;
}

/// Splitting a panel takes about as long as multiplying it by 32 columns. Where there are many groups A is split once
/// for all of them; a few read it from the caches for less than that costs.
bool must_pack_a(const Product& p) { return p.i > kPanel && p.j > kManyColumns; }
bool packs_meanwhile(const Product&, bool) { return true; }
bool reads_b_in_place(const Product&) { return false; }

/// Where the rows of a block of 32 columns will be stored; null where that is elsewhere.
void aim_at_output(Background& work, const Product& p, int64_t i, int64_t rows, int64_t j, int64_t columns) {
  if (p.out.transposed || p.out.dtype != DType::kF32 || columns < kPanel) return;
  work.c = reinterpret_cast<char*>(static_cast<float*>(p.out.y) + i * p.out.ld + j);
  work.c_rows = rows;
  work.c_stride = p.out.ld * 4;
}

/// The next packed panel, in shares for the calls of this block: rows of two lines a step.
void ask_packed(Background& work, const uint8_t* next, int64_t steps, int64_t call, int64_t calls) {
  constexpr int64_t kRows = kStepBytes / (kTerms * 4);
  const int64_t begin = kRows * call / calls;
  work.ask_stride = steps * kTerms * 4;
  work.ask = reinterpret_cast<const char*>(next + begin * work.ask_stride);
  work.ask_rows = kRows * (call + 1) / calls - begin;
}

void multiply_terms(const Product& p, const ProductBlock& block) {
  const int64_t steps = steps_of(block.r1 - block.r0), calls = (block.columns + kPanel - 1) / kPanel;
  const bool a_packed = block.packed_a != nullptr, copies_a = block.copy_a != nullptr;
  const bool a_once = !a_packed && !copies_a, b_once = p.i <= kPanel;
  alignas(64) uint8_t a_ring[kRing * kStepBytes], b_ring[kRing * kStepBytes];
  PanelSplit own_a, own_b, next_a;
  own_a.turned = next_a.turned = !p.a.r_contiguous;
  own_b.turned = p.b.r_contiguous;
  SplitPanel a{static_cast<const uint8_t*>(block.copy_a), -1};
  if (a_once) a = {a_ring, kRing - 1};
  if (a_packed) a.data = static_cast<const uint8_t*>(block.packed_a) + steps_of(block.r0) * kStepBytes;
  aim(own_a, p.a, block.i0, block.rows, block.r0, block.r1);
  own_a.out = const_cast<uint8_t*>(a.data);
  own_a.step_mask = a.mask;
  aim(next_a, p.a, block.i0 + block.rows, block.next_rows, block.r0, block.r1);
  next_a.out = own_a.out;
  next_a.ahead = next_a.r_contiguous ? 0 : kNear;
  for (int64_t call = 0; call < calls; ++call) {
    Background work;
    const int64_t j = call * kPanel, columns = at_most(block.columns - j, kPanel);
    SplitPanel b{static_cast<const uint8_t*>(block.packed_b) + call * steps * kStepBytes, -1};
    if (b_once) b = {b_ring, kRing - 1};
    if (a_once || (block.pack_a && call == 0)) work.own_a = &own_a;
    if (a_packed && block.next_rows > 0) ask_packed(work, a.data + steps_of(p.r) * kStepBytes, steps, call, calls);
    if (b_once || block.pack_b) {
      aim(own_b, p.b, block.j0 + j, columns, block.r0, block.r1);
      own_b.out = const_cast<uint8_t*>(b.data);
      own_b.step_mask = b.mask;
      work.own_b = &own_b;
    }
    if (copies_a && block.next_rows > 0 && call + 1 == calls) work.next_a = &next_a;
    if (copies_a && block.next_rows > 0 && call + 1 < calls && next_a.r_contiguous) {
      const int64_t row = block.next_rows * call / (calls - 1);
      work.ask = reinterpret_cast<const char*>(next_a.data + row * next_a.ld);
      work.ask_rows = block.next_rows * (call + 1) / (calls - 1) - row;
      work.ask_stride = next_a.ld;
    }
    aim_at_output(work, p, block.i0, block.rows, block.j0 + j, columns);
    amx::with_tiles(block.rows, columns, [&]<int kRows, int kColumns>() {
      const TileSums<kRows, kColumns> sums{block.c + j, block.ldc};
      p.out.transposed ? multiply_steps<kRows, kColumns, true>(a, b, steps, sums, block.first, work)
                       : multiply_steps<kRows, kColumns, false>(a, b, steps, sums, block.first, work);
    });
  }
}

void multiply(const Product& p, const ProductBlock& block) {
  if (p.i > kPanel || p.b.r_contiguous) return multiply_terms(p, block);
  ProductBlock some = block;
  some.next_rows = 0;
  do {
    some.r1 = at_most(some.r0 + kFewRowsTerms, block.r1);
    if (block.copy_a) some.copy_a = static_cast<uint8_t*>(block.copy_a) + (some.r0 - block.r0) / kTerms * kStepBytes;
    multiply_terms(p, some);
    some.r0 = some.r1;
    some.first = false;
  } while (some.r0 < block.r1);
}

void pack_a(const Product& p, int64_t panel, int64_t count, void* packed) {
  auto* out = static_cast<uint8_t*>(packed);
  for (int64_t i = panel * kPanel; i < (panel + count) * kPanel; i += kPanel, out += steps_of(p.r) * kStepBytes) {
    PanelSplit split;
    split.turned = !p.a.r_contiguous;
    aim(split, p.a, i, at_most(p.i - i, kPanel), 0, p.r);
    split.out = out;
    split.units(0, steps_of(p.r) * kUnits);
  }
}

void store(const Product& p, const ProductBlock& block, float* scratch) {
  store_block_avx512(p, block, scratch, false);
}
void begin() { amx::configure_tiles(); }
void end() { _tile_release(); }
}  // namespace

const ProductEngine& split_amx_engine() {
  static constexpr ProductEngine kEngine = {.panel_i = kPanel,
                                            .panel_j = kPanel,
                                            .r_step = kTerms,
                                            .row_step = kTile,
                                            .block_i = kPanel,
                                            .block_j = kBlockColumns,
                                            .group_j = kGroup,
                                            .narrow_j = kNarrow,
                                            .element_bytes = kStepBytes / (kPanel * kTerms),
                                            .ahead_terms = 0,
                                            .stores_meanwhile = false,
                                            .b_bytes = 1200 * 1024,
                                            .copies_a = true,
                                            .must_pack_a = must_pack_a,
                                            .packs_meanwhile = packs_meanwhile,
                                            .reads_b_in_place = reads_b_in_place,
                                            .pack_a = pack_a,
                                            .pack_b = nullptr,
                                            .multiply = multiply,
                                            .store = store,
                                            .begin = begin,
                                            .end = end};
  return kEngine;
}

}  // namespace permafrost
