#include "core/kernels/attention_cpu.h"
#include "core/kernels/attention_lanes_avx512.h"

// Attention in bf16 on AMX tiles. A tile product adds to 16 x 16 f32 sums the product of 16 rows of 32 bf16 (A) and of
// 32 rows of 16 columns of bf16 (B), of which B's rows lie in pairs: word j of pair i holds rows 2i and 2i+1 of column j.
// In "pairs" layout below, a matrix of n rows is n/2 rows of words. Queries go in tiles of 32, keys in steps of 32;
// whatever lies outside the problem is zero in every operand.
namespace permafrost {

namespace {
using avx512::Bf16Lanes;
using avx512::F32Lanes;
using avx512::first_lanes;
using avx512::fma;
using avx512::set1;

constexpr int64_t kTile = 32;

int64_t round_up_32(int64_t n) { return attention_round_up(n, 32); }
/// Queries whose probabilities backward holds at once.
int64_t query_chunk(int64_t queries, int64_t keys) {
  const int64_t most = keys <= 512 ? 256 : 128;
  return queries < most ? round_up_32(queries) : most;
}

// ---- tiles

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

/// c (16 m x 16 n, f32) = or += a b over k steps of 32. a: bf16, rows of lda words; b: pairs, rows of ldb words;
/// c: rows of ldc floats. All extents in whole tiles.
struct TileProduct {
  int64_t m, n, k;
  const uint32_t* a;
  int64_t lda;
  const uint32_t* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  bool add;
};

/// kRows x kColumns tiles of c (at most 2 x 2), over all of k.
template <int kRows, int kColumns>
PERMAFROST_LANES void tile_block(const TileProduct& p, int64_t i, int64_t j) {
  const long lda = p.lda * 4, ldb = p.ldb * 4, ldc = p.ldc * 4;
  const uint32_t* a0 = p.a + i * 16 * p.lda;
  const uint32_t* a1 = a0 + 16 * p.lda;
  const uint32_t* b0 = p.b + j * 16;
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
  for (int64_t q = 0; q < p.k; ++q) {
    const uint32_t* b = b0 + q * 16 * p.ldb;
    _tile_loadd(4, a0 + q * 16, lda);
    _tile_loadd(6, b, ldb);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kRows == 2) {
      _tile_loadd(5, a1 + q * 16, lda);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kColumns == 2) {
      _tile_loadd(7, b + 16, ldb);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRows == 2 && kColumns == 2) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c00, ldc);
  if constexpr (kColumns == 2) _tile_stored(1, c00 + 16, ldc);
  if constexpr (kRows == 2) _tile_stored(2, c10, ldc);
  if constexpr (kRows == 2 && kColumns == 2) _tile_stored(3, c10 + 16, ldc);
}

void product(const TileProduct& p) {
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

// ---- layouts

/// n bf16 from p, zeros behind: 32 lanes.
PERMAFROST_LANES __m512i load_32(const uint16_t* p, int64_t n) {
  if (n >= 32) return _mm512_loadu_si512(p);
  if (n <= 0) return _mm512_setzero_si512();
  return _mm512_maskz_loadu_epi16((__mmask32{1} << n) - 1, p);
}

/// dst (padded_rows x width words) = rows of `size` bf16 `stride` apart, zeros around. width * 2 is a multiple of 32.
void copy_rows(const uint16_t* src, int64_t stride, int64_t rows, int64_t size, int64_t padded_rows, uint32_t* dst,
               int64_t width) {
  for (int64_t r = 0; r < padded_rows; ++r)
    for (int64_t w = 0; w < width; w += 16) {
      const __m512i words = load_32(src + r * stride + 2 * w, r < rows ? size - 2 * w : 0);
      _mm512_store_si512(dst + r * width + w, words);
    }
}

/// Words of 32 + 32 bf16, low halves first: (a0 b0) (a1 b1) ... as two vectors of words.
PERMAFROST_LANES void interleave(__m512i a, __m512i b, __m512i* first, __m512i* second) {
  const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
  *first = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high);
  *second = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high);
}

/// dst in pairs layout: padded_rows / 2 rows of `width` words (one per column; a multiple of 32), zeros around.
void copy_pairs(const uint16_t* src, int64_t stride, int64_t rows, int64_t size, int64_t padded_rows, uint32_t* dst,
                int64_t width) {
  for (int64_t r = 0; r < padded_rows; r += 2)
    for (int64_t c = 0; c < width; c += 32) {
      const __m512i even = load_32(src + r * stride + c, r < rows ? size - c : 0);
      const __m512i odd = load_32(src + (r + 1) * stride + c, r + 1 < rows ? size - c : 0);
      __m512i first, second;
      interleave(even, odd, &first, &second);
      _mm512_store_si512(dst + r / 2 * width + c, first);
      _mm512_store_si512(dst + r / 2 * width + c + 16, second);
    }
}

/// dst (columns x rows words, rows of ld_dst) = transpose of src (rows x columns words). Extents are multiples of 16.
void transpose_words(const uint32_t* src, int64_t ld_src, int64_t rows, int64_t columns, uint32_t* dst, int64_t ld_dst) {
  for (int64_t r = 0; r < rows; r += 16)
    for (int64_t c = 0; c < columns; c += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i) block[i] = _mm512_load_si512(src + (r + i) * ld_src + c);
      avx512::transpose_16x16(block);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(dst + (c + i) * ld_dst + r, block[i]);
    }
}

/// The transpose of `rows` rows of bf16 in pairs layout: padded_size / 2 rows of words, one per row (key).
void copy_transposed_pairs(const uint16_t* src, int64_t stride, int64_t rows, int64_t size, int64_t padded_size,
                           uint32_t* piece, uint32_t* dst, int64_t ld_dst) {
  const int64_t words = padded_size / 2;
  for (int64_t r = 0; r < round_up_32(rows); r += 16) {
    copy_rows(src + r * stride, stride, rows - r, size, 16, piece, words);
    transpose_words(piece, words, 16, words, dst + r, ld_dst);
  }
}

// ---- memory

const uint16_t* head_begin(const void* base, const AttentionCall& call, int64_t b, int64_t h, int64_t token, int64_t tokens,
                           int64_t stride) {
  return static_cast<const uint16_t*>(base) + (b * tokens + token) * stride + h * call.head_size;
}
uint16_t* head_begin(void* base, const AttentionCall& call, int64_t b, int64_t h, int64_t token, int64_t tokens,
                     int64_t stride) {
  return static_cast<uint16_t*>(base) + (b * tokens + token) * stride + h * call.head_size;
}

/// Extents in elements: size rounded up to 32 and keys rounded up to 32, and the length of a row of keys in words.
struct Extents {
  int64_t size, keys, ld_keys, ld_half_keys;
  Extents(int64_t head_size, int64_t key_count)
      : size(round_up_32(head_size)),
        keys(round_up_32(key_count)),
        ld_keys(attention_leading(keys)),
        ld_half_keys(attention_leading(keys / 2)) {}
};

struct ForwardBuffers {
  uint32_t *k_transposed, *v, *q, *p, *piece;
  float *scores, *out;
};
ForwardBuffers lay_out_forward(const Extents& e, AttentionScratch& scratch) {
  ForwardBuffers f;
  f.k_transposed = scratch.words(e.size / 2 * e.ld_keys);  // pairs of k^T
  f.v = scratch.words(e.keys / 2 * e.size);                // pairs of v
  f.q = scratch.words(kTile * e.size / 2);
  f.p = scratch.words(kTile * e.ld_half_keys);
  f.piece = scratch.words(16 * e.size / 2);
  f.scores = scratch.floats(kTile * e.ld_keys);
  f.out = scratch.floats(kTile * e.size);
  return f;
}

// ---- forward

/// Raw scores -> e^(scale s - max) as bf16 where seen, 0 elsewhere, up to `width` (a multiple of 32).
AttentionRowSum softmax_row(const float* scores, uint16_t* p, int64_t visible, int64_t width, const uint8_t* allowed,
                            float scale) {
  const __m512 factor = set1(scale);
  __m512 maximum = set1(-__builtin_inff());
  unsigned seen = 0;
  for (int64_t s = 0; s < visible; s += 16) {
    const __mmask16 lanes = avx512::seen_keys(s, visible, allowed);
    seen |= lanes;
    maximum = _mm512_mask_max_ps(maximum, lanes, maximum, _mm512_mul_ps(F32Lanes::load(scores + s), factor));
  }
  const float top = _mm512_reduce_max_ps(maximum);
  __m512 sum = _mm512_setzero_ps();
  int64_t s = 0;
  for (; s < visible; s += 16) {
    const __mmask16 lanes = avx512::seen_keys(s, visible, allowed);
    const __m512 e = avx512::exp_not_positive(fma(F32Lanes::load(scores + s), factor, set1(-top)));
    const __m512 kept = _mm512_maskz_mov_ps(lanes, e);
    sum = _mm512_add_ps(sum, kept);
    _mm256_store_si256(reinterpret_cast<__m256i*>(p + s), (__m256i)_mm512_cvtneps_pbh(kept));
  }
  for (; s < width; s += 16) _mm256_store_si256(reinterpret_cast<__m256i*>(p + s), _mm256_setzero_si256());
  if (!seen) return {0.0f, -__builtin_inff()};
  const float total = _mm512_reduce_add_ps(sum);
  return {1.0f / total, top + avx512::log_scalar(total)};
}

void store_rows(const float* src, int64_t ld, const float* row_scale, int64_t rows, int64_t n, uint16_t* dst,
                int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const __m512 scale = set1(row_scale ? row_scale[r] : 1.0f);
    for (int64_t i = 0; i < n; i += 16)
      Bf16Lanes::store(dst + r * stride + i, _mm512_mul_ps(F32Lanes::load(src + r * ld + i), scale), first_lanes(n - i));
  }
}

// ---- backward

struct BackwardBuffers {
  uint32_t *k_transposed, *v_transposed, *k, *piece, *q, *dout, *q_transposed, *dout_transposed;
  uint32_t *p_pairs, *ds_pairs, *ds;  // of one chunk of queries
  float *scores, *dscores, *dq;       // of one tile
  float *dk_transposed, *dv_transposed;
};
BackwardBuffers lay_out_backward(const Extents& e, int64_t chunk, AttentionScratch& scratch) {
  BackwardBuffers f;
  f.k_transposed = scratch.words(e.size / 2 * e.ld_keys);
  f.v_transposed = scratch.words(e.size / 2 * e.ld_keys);
  f.k = scratch.words(e.keys / 2 * e.size);
  f.piece = scratch.words(16 * e.size);
  f.q = scratch.words(kTile * e.size / 2);
  f.dout = scratch.words(kTile * e.size / 2);
  f.q_transposed = scratch.words(e.size * attention_leading(chunk / 2));
  f.dout_transposed = scratch.words(e.size * attention_leading(chunk / 2));
  f.p_pairs = scratch.words(chunk / 2 * e.ld_keys);
  f.ds_pairs = scratch.words(chunk / 2 * e.ld_keys);
  f.ds = scratch.words(kTile * e.ld_half_keys);
  f.scores = scratch.floats(kTile * e.ld_keys);
  f.dscores = scratch.floats(kTile * e.ld_keys);
  f.dq = scratch.floats(kTile * e.size);
  f.dk_transposed = scratch.floats(e.size * e.ld_keys);
  f.dv_transposed = scratch.floats(e.size * e.ld_keys);
  return f;
}

/// What the elementwise part of backward needs to know of one query.
struct BackwardRow {
  int64_t visible;
  const uint8_t* allowed;
  float lse, delta;
};

/// p and ds = scale p (dp - delta) of 16 keys, 0 where not seen.
struct PairOfVectors {
  __m512 p, ds;
};
PERMAFROST_LANES PairOfVectors probabilities(const float* scores, const float* dp, int64_t s, const BackwardRow& row, float scale) {
  const __mmask16 lanes = avx512::seen_keys(s, row.visible, row.allowed);
  const __m512 e = avx512::exp(fma(F32Lanes::load(scores + s), set1(scale), set1(-row.lse)));
  const __m512 p = _mm512_maskz_mov_ps(lanes, e);
  const __m512 inner = _mm512_sub_ps(F32Lanes::load(dp + s), set1(row.delta));
  return {p, _mm512_maskz_mul_ps(lanes, _mm512_mul_ps(p, set1(scale)), inner)};
}

/// Two queries: p and ds in pairs layout and ds as rows, all in bf16, up to `width` keys.
void backward_rows(const float* scores, const float* dp, int64_t ld, const BackwardRow rows[2], float scale, int64_t width,
                   uint32_t* p_pairs, uint32_t* ds_pairs, uint32_t* ds, int64_t ld_ds) {
  // vcvtne2ps2bf16 gives (row 0's 16, row 1's 16); this order makes pairs of them.
  const __m512i pair_order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                              21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const int64_t visible = rows[0].visible > rows[1].visible ? rows[0].visible : rows[1].visible;
  int64_t s = 0;
  for (; s < visible; s += 16) {
    const PairOfVectors a = probabilities(scores, dp, s, rows[0], scale);
    const PairOfVectors b = probabilities(scores + ld, dp + ld, s, rows[1], scale);
    const __m512i p = (__m512i)_mm512_cvtne2ps_pbh(b.p, a.p), d = (__m512i)_mm512_cvtne2ps_pbh(b.ds, a.ds);
    _mm512_store_si512(p_pairs + s, _mm512_permutexvar_epi16(pair_order, p));
    _mm512_store_si512(ds_pairs + s, _mm512_permutexvar_epi16(pair_order, d));
    _mm256_store_si256(reinterpret_cast<__m256i*>(ds + s / 2), _mm512_castsi512_si256(d));
    _mm256_store_si256(reinterpret_cast<__m256i*>(ds + ld_ds + s / 2), _mm512_extracti64x4_epi64(d, 1));
  }
  for (; s < width; s += 16) {
    _mm512_store_si512(p_pairs + s, _mm512_setzero_si512());
    _mm512_store_si512(ds_pairs + s, _mm512_setzero_si512());
    _mm256_store_si256(reinterpret_cast<__m256i*>(ds + s / 2), _mm256_setzero_si256());
    _mm256_store_si256(reinterpret_cast<__m256i*>(ds + ld_ds + s / 2), _mm256_setzero_si256());
  }
}

float row_dot(const uint16_t* a, const uint16_t* b, int64_t n) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes(n - i);
    sum = fma(Bf16Lanes::load(a + i, lanes), Bf16Lanes::load(b + i, lanes), sum);
  }
  return _mm512_reduce_add_ps(sum);
}

/// One (batch, head) in work.
struct Head {
  const AttentionCall& call;
  const Extents& e;
  const BackwardBuffers& f;
  int64_t b, h, contiguous;
};

/// dst = the transpose of `count` rows (queries), as rows of bf16: e.size rows.
void transpose_queries(const Head& w, const uint16_t* rows, int64_t stride, int64_t count, int64_t ld_dst, uint32_t* dst) {
  for (int64_t r = 0; r < round_up_32(count); r += 32) {
    copy_pairs(rows + r * stride, stride, count - r, w.call.head_size, 32, w.f.piece, w.e.size);
    transpose_words(w.f.piece, w.e.size, 16, w.e.size, dst + r / 2, ld_dst);
  }
}

/// Queries [tile, tile + rows) of the chunk that begins at `chunk`: their part of p and ds, and dq.
void backward_tile(const Head& w, int64_t chunk, int64_t tile, int64_t rows, int64_t chunk_width) {
  const AttentionCall& call = w.call;
  const BackwardBuffers& f = w.f;
  const int64_t width = round_up_32(widest_row(call, w.b, tile, tile + rows)), half = w.e.size / 2;
  const uint16_t* dout = head_begin(call.dout, call, w.b, w.h, tile, call.queries, w.contiguous);
  const uint16_t* out = head_begin(static_cast<const void*>(call.out), call, w.b, w.h, tile, call.queries, w.contiguous);
  copy_rows(head_begin(call.q, call, w.b, w.h, tile, call.queries, call.stride_q), call.stride_q, rows, call.head_size,
            kTile, f.q, half);
  copy_rows(dout, w.contiguous, rows, call.head_size, kTile, f.dout, half);
  const int64_t tiles = attention_round_up(rows, 16) / 16;
  product({tiles, width / 16, w.e.size / 32, f.q, half, f.k_transposed, w.e.ld_keys, f.scores, w.e.ld_keys, false});
  if (call.dq || call.dk)  // else ds is computed from what stands there, and read by nobody
    product({tiles, width / 16, w.e.size / 32, f.dout, half, f.v_transposed, w.e.ld_keys, f.dscores, w.e.ld_keys, false});
  for (int64_t r = 0; r < kTile; r += 2) {
    BackwardRow pair[2] = {};
    for (int64_t i = 0; i < 2 && r + i < rows; ++i) {
      const int64_t t = tile + r + i;
      pair[i] = {visible_keys(call, w.b, t), allowed_row(call, w.b, t), call.lse[(w.b * call.heads + w.h) * call.queries + t],
                 row_dot(dout + (r + i) * w.contiguous, out + (r + i) * w.contiguous, call.head_size)};
    }
    const int64_t pairs = (tile - chunk + r) / 2 * w.e.ld_keys;
    backward_rows(f.scores + r * w.e.ld_keys, f.dscores + r * w.e.ld_keys, w.e.ld_keys, pair, call.scale, chunk_width,
                  f.p_pairs + pairs, f.ds_pairs + pairs, f.ds + r * w.e.ld_half_keys, w.e.ld_half_keys);
  }
  if (!call.dq) return;
  product({tiles, w.e.size / 16, width / 32, f.ds, w.e.ld_half_keys, f.k, w.e.size, f.dq, w.e.size, false});
  store_rows(f.dq, w.e.size, nullptr, rows, call.head_size,
             head_begin(call.dq, call, w.b, w.h, tile, call.queries, call.stride_q), call.stride_q);
}

/// A chunk of queries: dq, and its share of dk^T = q^T ds and dv^T = dout^T p.
void backward_chunk(const Head& w, int64_t chunk, int64_t rows, bool add) {
  const AttentionCall& call = w.call;
  const BackwardBuffers& f = w.f;
  const int64_t width = round_up_32(widest_row(call, w.b, chunk, chunk + rows));
  for (int64_t tile = 0; tile < rows; tile += kTile)
    backward_tile(w, chunk, chunk + tile, rows - tile < kTile ? rows - tile : kTile, width);
  const int64_t ld = attention_leading(query_chunk(call.queries, call.keys) / 2), steps = round_up_32(rows) / 32;
  const int64_t size_tiles = attention_round_up(call.head_size, 16) / 16;
  if (call.dk) {
    transpose_queries(w, head_begin(call.q, call, w.b, w.h, chunk, call.queries, call.stride_q), call.stride_q, rows, ld,
                      f.q_transposed);
    product({size_tiles, width / 16, steps, f.q_transposed, ld, f.ds_pairs, w.e.ld_keys, f.dk_transposed, w.e.ld_keys, add});
  }
  if (call.dv) {
    transpose_queries(w, head_begin(call.dout, call, w.b, w.h, chunk, call.queries, w.contiguous), w.contiguous, rows, ld,
                      f.dout_transposed);
    product({size_tiles, width / 16, steps, f.dout_transposed, ld, f.p_pairs, w.e.ld_keys, f.dv_transposed, w.e.ld_keys, add});
  }
}

/// Rows (keys) of bf16 from their transpose in f32; zeros for keys from `seen` on.
void store_transposed(const Head& w, const float* transposed, int64_t seen, uint16_t* dst, int64_t stride) {
  const int64_t keys = w.call.keys, size = w.call.head_size;
  for (int64_t s = 0; s < keys; s += 16)
    for (int64_t d = 0; d < size; d += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i)
        block[i] = s < seen ? _mm512_load_si512(transposed + (d + i) * w.e.ld_keys + s) : _mm512_setzero_si512();
      avx512::transpose_16x16(block);
      for (int64_t i = 0; i < 16 && s + i < keys; ++i)
        Bf16Lanes::store(dst + (s + i) * stride + d, _mm512_castsi512_ps(block[i]), first_lanes(size - d));
    }
}
}  // namespace

int64_t attention_scratch_amx(bool backward, int64_t queries, int64_t keys, int64_t head_size) {
  const Extents e(head_size, keys);
  AttentionScratch scratch{0};
  if (backward)
    lay_out_backward(e, query_chunk(queries, keys), scratch);
  else
    lay_out_forward(e, scratch);
  return scratch.used;
}

void attention_forward_amx(const AttentionCall& call, int64_t b, int64_t h, int64_t begin, int64_t end, uintptr_t memory) {
  const TileSession tiles_in_use;
  const Extents e(call.head_size, call.keys);
  AttentionScratch scratch{memory};
  const ForwardBuffers f = lay_out_forward(e, scratch);
  const int64_t contiguous = call.heads * call.head_size, half = e.size / 2;
  const int64_t seen = widest_row(call, b, begin, end);
  copy_transposed_pairs(head_begin(call.k, call, b, h, 0, call.keys, call.stride_k), call.stride_k, seen, call.head_size,
                        e.size, f.piece, f.k_transposed, e.ld_keys);
  copy_pairs(head_begin(call.v, call, b, h, 0, call.keys, call.stride_v), call.stride_v, seen, call.head_size,
             round_up_32(seen), f.v, e.size);
  for (int64_t tile = begin; tile < end; tile += kTile) {
    const int64_t rows = end - tile < kTile ? end - tile : kTile, tiles = attention_round_up(rows, 16) / 16;
    const int64_t width = round_up_32(widest_row(call, b, tile, tile + rows));
    copy_rows(head_begin(call.q, call, b, h, tile, call.queries, call.stride_q), call.stride_q, rows, call.head_size, kTile,
              f.q, half);
    product({tiles, width / 16, e.size / 32, f.q, half, f.k_transposed, e.ld_keys, f.scores, e.ld_keys, false});
    float inverse_sums[kTile];
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t t = tile + r;
      const AttentionRowSum sum =
          softmax_row(f.scores + r * e.ld_keys, reinterpret_cast<uint16_t*>(f.p + r * e.ld_half_keys),
                      visible_keys(call, b, t), width, allowed_row(call, b, t), call.scale);
      inverse_sums[r] = sum.inverse_sum;
      if (call.lse) call.lse[(b * call.heads + h) * call.queries + t] = sum.lse;
    }
    // Rows behind the last query hold what was there before: they make rows of `out` that nobody reads.
    product({tiles, attention_round_up(call.head_size, 16) / 16, width / 32, f.p, e.ld_half_keys, f.v, e.size, f.out, e.size,
             false});
    store_rows(f.out, e.size, inverse_sums, rows, call.head_size,
               head_begin(call.out, call, b, h, tile, call.queries, contiguous), contiguous);
  }
}

void attention_backward_amx(const AttentionCall& call, int64_t b, int64_t h, uintptr_t memory) {
  const TileSession tiles_in_use;
  const Extents e(call.head_size, call.keys);
  AttentionScratch scratch{memory};
  const int64_t chunk = query_chunk(call.queries, call.keys);
  const BackwardBuffers f = lay_out_backward(e, chunk, scratch);
  const Head w{call, e, f, b, h, call.heads * call.head_size};
  const int64_t seen = widest_row(call, b, 0, call.queries);
  const uint16_t* k = head_begin(call.k, call, b, h, 0, call.keys, call.stride_k);
  const uint16_t* v = head_begin(call.v, call, b, h, 0, call.keys, call.stride_v);
  copy_transposed_pairs(k, call.stride_k, seen, call.head_size, e.size, f.piece, f.k_transposed, e.ld_keys);
  copy_transposed_pairs(v, call.stride_v, seen, call.head_size, e.size, f.piece, f.v_transposed, e.ld_keys);
  if (call.dq) copy_pairs(k, call.stride_k, seen, call.head_size, round_up_32(seen), f.k, e.size);
  // The first chunk writes the sums and the others add, unless others see keys that the first does not (causal masks).
  const int64_t columns = round_up_32(seen);
  const bool add_all = round_up_32(widest_row(call, b, 0, call.queries < chunk ? call.queries : chunk)) < columns;
  for (int64_t d = 0; add_all && d < e.size; ++d)
    for (int64_t s = 0; s < columns; s += 16) {
      _mm512_store_ps(f.dk_transposed + d * e.ld_keys + s, _mm512_setzero_ps());
      _mm512_store_ps(f.dv_transposed + d * e.ld_keys + s, _mm512_setzero_ps());
    }
  for (int64_t begin = 0; begin < call.queries; begin += chunk)
    backward_chunk(w, begin, call.queries - begin < chunk ? call.queries - begin : chunk, add_all || begin > 0);
  if (call.dk)
    store_transposed(w, f.dk_transposed, seen, head_begin(call.dk, call, b, h, 0, call.keys, call.stride_k), call.stride_k);
  if (call.dv)
    store_transposed(w, f.dv_transposed, seen, head_begin(call.dv, call, b, h, 0, call.keys, call.stride_v), call.stride_v);
}

}  // namespace permafrost
