#pragma once
#include "core/kernels/attention_cpu.h"
#include "core/kernels/attention_lanes_avx512.h"

// Products of bf16 matrices on AMX tiles, for attention_amx.cc alone (same rule of inclusion as vector_math_avx512.h).
// A tile product adds to 16 x 16 f32 sums the product of 16 rows of 32 bf16 (A) and of 32 rows of 16 columns of bf16
// (B), of which B's rows lie in pairs: word j of pair i holds rows 2i and 2i + 1 of column j. Either operand of one
// tile product is 16 rows of 16 words. Most operands are stored tile after tile, 1 KiB each: such a tile is 16 lines in
// a row, which the processor fetches ahead, where rows far apart would each miss.
namespace permafrost::amx {

inline constexpr int64_t kTileWords = 256;

/// The compiler knows nothing of what tile loads read: everything stored before must be in memory.
PERMAFROST_LANES void publish() { asm volatile("" ::: "memory"); }

/// Eight tiles of 16 rows of 64 bytes for the lifetime of this object.
class TileSession {
 public:
  TileSession() {
    alignas(64) uint8_t config[64] = {};
    config[0] = 1;  // palette
    for (int tile = 0; tile < 8; ++tile) {
      config[16 + 2 * tile] = 64;  // bytes per row
      config[48 + tile] = 16;      // rows
    }
    publish();
    _tile_loadconfig(config);
  }
  ~TileSession() { _tile_release(); }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;
};

/// Words from one row to the next, from one tile of rows (A) or columns (B) to the next, from one step of k to the
/// next.
struct Operand {
  const uint32_t* at;
  int64_t row, tile, step;
};
/// Rows of `ld` words one below the other (A).
PERMAFROST_LANES Operand row_operand(const uint32_t* at, int64_t ld) { return {at, ld, 16 * ld, 16}; }
/// Tile after tile, `steps` of each row of tiles together.
PERMAFROST_LANES Operand tile_operand(const uint32_t* at, int64_t steps) {
  return {at, 16, steps * kTileWords, kTileWords};
}
/// Tile after tile, `tiles` of each step together.
PERMAFROST_LANES Operand step_operand(const uint32_t* at, int64_t tiles) {
  return {at, 16, kTileWords, tiles * kTileWords};
}

/// c (16 m x 16 n f32, rows of ldc) = or += a b over k steps of 32 bf16.
struct TileProduct {
  int64_t m, n, k;
  Operand a, b;
  float* c;
  int64_t ldc;
  bool add;
};

/// kRows x kColumns tiles of c (at most 2 x 2), over all of k.
template <int kRows, int kColumns>
PERMAFROST_LANES void tile_block(const TileProduct& p, int64_t i, int64_t j) {
  const long lda = p.a.row * 4, ldb = p.b.row * 4, ldc = p.ldc * 4;
  const uint32_t* a = p.a.at + i * p.a.tile;
  const uint32_t* b = p.b.at + j * p.b.tile;
  float* c00 = p.c + i * 16 * p.ldc + j * 16;
  float* c10 = c00 + 16 * p.ldc;
  if (p.add) {
    _tile_loadd(0, c00, ldc);
    if constexpr (kColumns == 2) _tile_loadd(1, c00 + 16, ldc);
    if constexpr (kRows == 2) _tile_loadd(2, c10, ldc);
    if constexpr (kRows == 2 && kColumns == 2) _tile_loadd(3, c10 + 16, ldc);
  } else {
    _tile_zero(0);
    if constexpr (kColumns == 2) _tile_zero(1);
    if constexpr (kRows == 2) _tile_zero(2);
    if constexpr (kRows == 2 && kColumns == 2) _tile_zero(3);
  }
  for (int64_t q = 0; q < p.k; ++q, a += p.a.step, b += p.b.step) {
    _tile_loadd(6, b, ldb);
    _tile_loadd(4, a, lda);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRows == 2) {
      _tile_loadd(5, a + p.a.tile, lda);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kColumns == 2) {
      _tile_loadd(7, b + p.b.tile, ldb);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRows == 2 && kColumns == 2) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c00, ldc);
  if constexpr (kColumns == 2) _tile_stored(1, c00 + 16, ldc);
  if constexpr (kRows == 2) _tile_stored(2, c10, ldc);
  if constexpr (kRows == 2 && kColumns == 2) _tile_stored(3, c10 + 16, ldc);
}

inline void product(const TileProduct& p) {
  publish();
  int64_t j = 0;
  for (; j + 2 <= p.n; j += 2) {
    int64_t i = 0;
    for (; i + 2 <= p.m; i += 2) tile_block<2, 2>(p, i, j);
    if (i < p.m) tile_block<1, 2>(p, i, j);
  }
  if (j == p.n) return;
  int64_t i = 0;
  for (; i + 2 <= p.m; i += 2) tile_block<2, 1>(p, i, j);
  if (i < p.m) tile_block<1, 1>(p, i, j);
}

// ---- from rows of bf16 to operands; whatever lies outside the rows is zero

/// n bf16 from p, zeros behind: 32 lanes.
PERMAFROST_LANES __m512i load_32(const uint16_t* p, int64_t n) {
  if (n >= 32) return _mm512_loadu_si512(p);
  if (n <= 0) return _mm512_setzero_si512();
  return _mm512_maskz_loadu_epi16((__mmask32{1} << n) - 1, p);
}

/// 32 bf16 of two rows as 32 pairs: columns 0-15 and 16-31.
PERMAFROST_LANES void interleave(__m512i even, __m512i odd, __m512i* first, __m512i* second) {
  const __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
  *first = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high);
  *second = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high);
}

PERMAFROST_LANES void store_tile(uint32_t* tile, const __m512i rows[16]) {
  for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + 16 * i, rows[i]);
}

/// A: `tiles` * 16 rows of `width` words below each other, from `rows` rows of `size` bf16 `stride` apart.
inline void copy_rows(const uint16_t* src, int64_t stride, int64_t rows, int64_t size, int64_t tiles, uint32_t* dst,
                      int64_t width) {
  for (int64_t r = 0; r < 16 * tiles; ++r)
    for (int64_t w = 0; w < width; w += 16)
      _mm512_store_si512(dst + r * width + w, load_32(src + r * stride + 2 * w, r < rows ? size - 2 * w : 0));
}

/// B whose k runs along the columns of src and whose columns are its rows (k^T for q k^T): tile_operand with
/// padded_size / 32 steps, round_up(rows, 32) / 16 tiles.
inline void copy_transposed(const uint16_t* src, int64_t stride, int64_t rows, int64_t size, int64_t padded_size,
                            uint32_t* dst) {
  for (int64_t r = 0; r < attention_round_up(rows, 32); r += 16)
    for (int64_t d = 0; d < padded_size; d += 32, dst += kTileWords) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i) block[i] = load_32(src + (r + i) * stride + d, r + i < rows ? size - d : 0);
      avx512::transpose_16x16(block);
      store_tile(dst, block);
    }
}

/// B whose k runs along the rows of src (v for p v): tile_operand with `steps` steps, padded_size / 16 tiles.
inline void copy_pairs(const uint16_t* src, int64_t stride, int64_t rows, int64_t size, int64_t padded_size,
                       int64_t steps, uint32_t* dst) {
  for (int64_t r = 0; r < 32 * steps; r += 2)
    for (int64_t c = 0; c < padded_size; c += 32) {
      const __m512i even = load_32(src + r * stride + c, r < rows ? size - c : 0);
      const __m512i odd = load_32(src + (r + 1) * stride + c, r + 1 < rows ? size - c : 0);
      uint32_t* to = dst + (c / 16 * steps + r / 32) * kTileWords + r % 32 / 2 * 16;
      __m512i first, second;
      interleave(even, odd, &first, &second);
      _mm512_store_si512(to, first);
      _mm512_store_si512(to + steps * kTileWords, second);
    }
}

/// A whose rows are the columns of src and whose k runs along its rows (q^T for q^T ds): tile_operand with `steps`
/// steps, padded_size / 16 tiles.
inline void copy_transposed_rows(const uint16_t* src, int64_t stride, int64_t rows, int64_t size, int64_t padded_size,
                                 int64_t steps, uint32_t* dst) {
  for (int64_t step = 0; step < steps; ++step)
    for (int64_t c = 0; c < padded_size; c += 32) {
      __m512i first[16], second[16];
      for (int i = 0; i < 16; ++i) {
        const int64_t r = 32 * step + 2 * i;
        interleave(load_32(src + r * stride + c, r < rows ? size - c : 0),
                   load_32(src + (r + 1) * stride + c, r + 1 < rows ? size - c : 0), &first[i], &second[i]);
      }
      avx512::transpose_16x16(first);
      avx512::transpose_16x16(second);
      store_tile(dst + (c / 16 * steps + step) * kTileWords, first);
      store_tile(dst + ((c / 16 + 1) * steps + step) * kTileWords, second);
    }
}

}  // namespace permafrost::amx
