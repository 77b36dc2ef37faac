#include "core/kernels/attention_tiles_amx.h"

// Attention in bf16 on AMX tiles. Queries go in tiles of 32, keys in steps of 32; whatever lies outside the problem is
// zero in every operand.
namespace permafrost {

namespace {
using amx::product;
using amx::row_operand;
using amx::step_operand;
using amx::tile_operand;
using avx512::Bf16Lanes;
using avx512::F32Lanes;
using avx512::first_lanes;
using avx512::fma;
using avx512::set1;

constexpr int64_t kTile = 32;
constexpr float kLog2E = 1.44269504089f, kLn2 = 0.69314718056f;

int64_t round_up_16(int64_t n) { return attention_round_up(n, 16); }
int64_t round_up_32(int64_t n) { return attention_round_up(n, 32); }
/// Queries whose probabilities backward holds at once.
int64_t query_chunk(int64_t queries, int64_t keys) {
  const int64_t most = keys <= 512 ? 256 : 128;
  return queries < most ? round_up_32(queries) : most;
}

const uint16_t* head_begin(const void* base, const AttentionCall& call, int64_t b, int64_t h, int64_t token,
                           int64_t tokens, int64_t stride) {
  return static_cast<const uint16_t*>(base) + (b * tokens + token) * stride + h * call.head_size;
}
uint16_t* head_begin(void* base, const AttentionCall& call, int64_t b, int64_t h, int64_t token, int64_t tokens,
                     int64_t stride) {
  return static_cast<uint16_t*>(base) + (b * tokens + token) * stride + h * call.head_size;
}

/// Size and keys rounded up to 32 elements, and the lengths of rows of keys: of floats, and of words of two bf16.
struct Extents {
  int64_t size, keys, ld_keys, ld_half_keys;
  Extents(int64_t head_size, int64_t key_count)
      : size(round_up_32(head_size)),
        keys(round_up_32(key_count)),
        ld_keys(attention_leading(keys)),
        ld_half_keys(attention_leading(keys / 2)) {}
};

void store_rows(const float* src, int64_t ld, const float* row_scale, int64_t rows, int64_t n, uint16_t* dst,
                int64_t stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; i += 16)
      Bf16Lanes::store(dst + r * stride + i, _mm512_mul_ps(F32Lanes::load(src + r * ld + i), set1(row_scale[r])),
                       first_lanes(n - i));
}

// ---- forward

struct ForwardBuffers {
  uint32_t *k_transposed, *v, *q, *p;
  float *scores, *out;
};
ForwardBuffers lay_out_forward(const Extents& e, AttentionScratch& scratch) {
  ForwardBuffers f;
  f.k_transposed = scratch.words(e.keys * e.size / 2);
  f.v = scratch.words(e.keys * e.size / 2);
  f.q = scratch.words(kTile * e.size / 2);
  f.p = scratch.words(kTile * e.ld_half_keys);
  f.scores = scratch.floats(kTile * e.ld_keys);
  f.out = scratch.floats(kTile * e.size);
  return f;
}

/// Raw scores -> e^(scale s - max) as bf16 where seen, 0 elsewhere, up to `width` (a multiple of 32). The maximum and
/// the sum are given back; both 0 and -inf where nothing is seen.
struct RowSum {
  float maximum_log2, sum;
};
template <bool kAllowed>
RowSum softmax_row(const float* scores, uint16_t* p, int64_t visible, int64_t width, const uint8_t* allowed,
                   float scale) {
  const __m512 factor = set1(scale * kLog2E);
  __m512 maximum = set1(-__builtin_inff());
  avx512::for_vectors(
      visible, [&](int64_t s, __mmask16 lanes) __attribute__((always_inline)) {
        if constexpr (kAllowed) lanes = avx512::seen_keys(s, visible, allowed);
        maximum = _mm512_mask_max_ps(maximum, lanes, maximum, _mm512_mul_ps(F32Lanes::load(scores + s), factor));
      });
  const float top = _mm512_reduce_max_ps(maximum);
  __m512 sum = _mm512_setzero_ps();
  avx512::for_vectors(
      visible, [&](int64_t s, __mmask16 lanes) __attribute__((always_inline)) {
        if constexpr (kAllowed) lanes = avx512::seen_keys(s, visible, allowed);
        const __m512 x = avx512::at_least(-150.0f, fma(F32Lanes::load(scores + s), factor, set1(-top)));
        const __m512 e = _mm512_maskz_mov_ps(lanes, avx512::exp2_finite(x));
        sum = _mm512_add_ps(sum, e);
        _mm256_store_si256(reinterpret_cast<__m256i*>(p + s), (__m256i)_mm512_cvtneps_pbh(e));
      });
  for (int64_t s = round_up_16(visible); s < width; s += 16)
    _mm256_store_si256(reinterpret_cast<__m256i*>(p + s), _mm256_setzero_si256());
  return {top, _mm512_reduce_add_ps(sum)};
}

/// log-sum-exp and 1/sum of a tile of rows; -inf and 0 where the sum is 0 (a row that sees something has 1 at least).
void finish_sums(const RowSum sums[kTile], float lse[kTile], float inverse_sums[kTile]) {
  alignas(64) float maxima[kTile], totals[kTile];
  for (int64_t r = 0; r < kTile; ++r) maxima[r] = sums[r].maximum_log2, totals[r] = sums[r].sum;
  for (int64_t r = 0; r < kTile; r += 16) {
    const __m512 total = F32Lanes::load(totals + r);
    const __mmask16 empty = _mm512_cmp_ps_mask(total, _mm512_setzero_ps(), _CMP_EQ_OQ);
    const __m512 sum = fma(F32Lanes::load(maxima + r), set1(kLn2), avx512::log_normal(total));
    F32Lanes::store(lse + r, _mm512_mask_mov_ps(sum, empty, set1(-__builtin_inff())));
    F32Lanes::store(inverse_sums + r, _mm512_maskz_div_ps(static_cast<__mmask16>(~empty), set1(1.0f), total));
  }
}

/// Queries [tile, tile + rows).
void forward_tile(const AttentionCall& call, const Extents& e, const ForwardBuffers& f, int64_t b, int64_t h,
                  int64_t tile, int64_t rows, int64_t key_steps) {
  const int64_t tiles = round_up_16(rows) / 16, half = e.size / 2, contiguous = call.heads * call.head_size;
  const int64_t width = round_up_32(widest_row(call, b, tile, tile + rows));
  amx::copy_rows(head_begin(call.q, call, b, h, tile, call.queries, call.stride_q), call.stride_q, rows, call.head_size,
                 tiles, f.q, half);
  product({tiles, width / 16, e.size / 32, row_operand(f.q, half), tile_operand(f.k_transposed, e.size / 32), f.scores,
           e.ld_keys, false});
  RowSum sums[kTile] = {};
  for (int64_t r = 0; r < rows; ++r) {
    auto* p = reinterpret_cast<uint16_t*>(f.p + r * e.ld_half_keys);
    const float* scores = f.scores + r * e.ld_keys;
    const int64_t visible = visible_keys(call, b, tile + r);
    sums[r] = call.allowed ? softmax_row<true>(scores, p, visible, width, allowed_row(call, b, tile + r), call.scale)
                           : softmax_row<false>(scores, p, visible, width, nullptr, call.scale);
  }
  alignas(64) float lse[kTile], inverse_sums[kTile];
  finish_sums(sums, lse, inverse_sums);
  float* lse_out = call.lse ? call.lse + (b * call.heads + h) * call.queries + tile : nullptr;
  for (int64_t r = 0; lse_out && r < rows; ++r) lse_out[r] = lse[r];
  // Rows behind the last query hold what was there before: they make rows of `out` that nobody reads.
  product({tiles, round_up_16(call.head_size) / 16, width / 32, row_operand(f.p, e.ld_half_keys),
           tile_operand(f.v, key_steps), f.out, e.size, false});
  store_rows(f.out, e.size, inverse_sums, rows, call.head_size,
             head_begin(call.out, call, b, h, tile, call.queries, contiguous), contiguous);
}

// ---- backward

struct BackwardBuffers {
  uint32_t *k_transposed, *v_transposed, *k, *q, *dout, *q_transposed, *dout_transposed;
  uint32_t *p_pairs, *ds_pairs;  // of one chunk of queries
  uint32_t* ds;                  // of one tile
  float *scores, *dscores, *dq;  // of one tile
  float *dk_transposed, *dv_transposed;
};
BackwardBuffers lay_out_backward(const Extents& e, int64_t chunk, AttentionScratch& scratch) {
  BackwardBuffers f;
  f.k_transposed = scratch.words(e.keys * e.size / 2);
  f.v_transposed = scratch.words(e.keys * e.size / 2);
  f.k = scratch.words(e.keys * e.size / 2);
  f.q = scratch.words(kTile * e.size / 2);
  f.dout = scratch.words(kTile * e.size / 2);
  f.q_transposed = scratch.words(chunk * e.size / 2);
  f.dout_transposed = scratch.words(chunk * e.size / 2);
  f.p_pairs = scratch.words(chunk * e.keys / 2);
  f.ds_pairs = scratch.words(chunk * e.keys / 2);
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
  float lse_log2, delta;
};

/// p and p (dp - delta) of 16 keys, 0 where not seen.
struct PairOfVectors {
  __m512 p, ds;
};
template <bool kAllowed>
PERMAFROST_LANES PairOfVectors probabilities(const float* scores, const float* dp, int64_t s, const BackwardRow& row,
                                             __m512 factor) {
  const __mmask16 lanes = kAllowed ? avx512::seen_keys(s, row.visible, row.allowed) : first_lanes(row.visible - s);
  // 2^120: a score can be above its row's lse by rounding alone, but nothing below may turn into inf * 0.
  const __m512 x = avx512::at_most(120.0f, fma(F32Lanes::load(scores + s), factor, set1(-row.lse_log2)));
  const __m512 p = _mm512_maskz_mov_ps(lanes, avx512::exp2_finite(avx512::at_least(-150.0f, x)));
  const __m512 inner = _mm512_sub_ps(F32Lanes::load(dp + s), set1(row.delta));
  return {p, _mm512_maskz_mul_ps(lanes, p, inner)};
}

/// Where a pair of queries goes: its row of the tiles of p and ds in pairs, `tile_step` words between tiles of keys;
/// and two rows of ds, `ld_ds` words apart.
struct PairOutput {
  uint32_t *p_pairs, *ds_pairs;
  uint32_t* ds;
  int64_t ld_ds;
};

/// Two queries: p and ds in bf16, up to `width` keys.
template <bool kAllowed>
void backward_rows(const float* scores, const float* dp, int64_t ld, const BackwardRow rows[2], float scale,
                   int64_t width, const PairOutput& to) {
  // vcvtne2ps2bf16 gives (row 0's 16, row 1's 16); this order makes pairs of them.
  const __m512i pair_order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512 factor = set1(scale * kLog2E);
  const int64_t visible = rows[0].visible > rows[1].visible ? rows[0].visible : rows[1].visible;
  int64_t s = 0;
  for (; s < visible; s += 16) {
    const PairOfVectors a = probabilities<kAllowed>(scores, dp, s, rows[0], factor);
    const PairOfVectors b = probabilities<kAllowed>(scores + ld, dp + ld, s, rows[1], factor);
    const __m512i p = (__m512i)_mm512_cvtne2ps_pbh(b.p, a.p), d = (__m512i)_mm512_cvtne2ps_pbh(b.ds, a.ds);
    _mm512_store_si512(to.p_pairs + s * 16, _mm512_permutexvar_epi16(pair_order, p));
    _mm512_store_si512(to.ds_pairs + s * 16, _mm512_permutexvar_epi16(pair_order, d));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to.ds + s / 2), _mm512_castsi512_si256(d));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to.ds + to.ld_ds + s / 2), _mm512_extracti64x4_epi64(d, 1));
  }
  for (; s < width; s += 16) {
    _mm512_store_si512(to.p_pairs + s * 16, _mm512_setzero_si512());
    _mm512_store_si512(to.ds_pairs + s * 16, _mm512_setzero_si512());
    _mm256_store_si256(reinterpret_cast<__m256i*>(to.ds + s / 2), _mm256_setzero_si256());
    _mm256_store_si256(reinterpret_cast<__m256i*>(to.ds + to.ld_ds + s / 2), _mm256_setzero_si256());
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

/// One (batch, head) in work; `steps` steps of 32 keys are seen by some query.
struct Head {
  const AttentionCall& call;
  const Extents& e;
  const BackwardBuffers& f;
  int64_t b, h, contiguous, steps;
};

/// Queries [tile, tile + rows) of the chunk that begins at `chunk` and sees `chunk_width` keys: their part of p and ds,
/// and dq.
void backward_tile(const Head& w, int64_t chunk, int64_t tile, int64_t rows, int64_t chunk_width) {
  const AttentionCall& call = w.call;
  const BackwardBuffers& f = w.f;
  const int64_t width = round_up_32(widest_row(call, w.b, tile, tile + rows)), half = w.e.size / 2;
  const int64_t tiles = round_up_16(rows) / 16, size_steps = w.e.size / 32;
  const uint16_t* dout = head_begin(call.dout, call, w.b, w.h, tile, call.queries, w.contiguous);
  const uint16_t* out =
      head_begin(static_cast<const void*>(call.out), call, w.b, w.h, tile, call.queries, w.contiguous);
  amx::copy_rows(head_begin(call.q, call, w.b, w.h, tile, call.queries, call.stride_q), call.stride_q, rows,
                 call.head_size, tiles, f.q, half);
  amx::copy_rows(dout, w.contiguous, rows, call.head_size, tiles, f.dout, half);
  product({tiles, width / 16, size_steps, row_operand(f.q, half), tile_operand(f.k_transposed, size_steps), f.scores,
           w.e.ld_keys, false});
  if (call.dq || call.dk)  // else ds is computed from what stands there, and read by nobody
    product({tiles, width / 16, size_steps, row_operand(f.dout, half), tile_operand(f.v_transposed, size_steps),
             f.dscores, w.e.ld_keys, false});
  const float* lse = call.lse + (w.b * call.heads + w.h) * call.queries + tile;
  for (int64_t r = 0; r < kTile; r += 2) {
    BackwardRow pair[2] = {};
    for (int64_t i = r; i < r + 2 && i < rows; ++i)
      pair[i - r] = {visible_keys(call, w.b, tile + i), allowed_row(call, w.b, tile + i), lse[i] * kLog2E,
                     row_dot(dout + i * w.contiguous, out + i * w.contiguous, call.head_size)};
    // The tiles of one step (32 queries) lie together, one for every 16 keys of the chunk.
    const int64_t at = (tile - chunk) / 32 * (chunk_width / 16) * amx::kTileWords + r / 2 * 16;
    const PairOutput to{f.p_pairs + at, f.ds_pairs + at, f.ds + r * w.e.ld_half_keys, w.e.ld_half_keys};
    const auto rows_at = call.allowed ? backward_rows<true> : backward_rows<false>;
    rows_at(f.scores + r * w.e.ld_keys, f.dscores + r * w.e.ld_keys, w.e.ld_keys, pair, call.scale, chunk_width, to);
  }
  if (!call.dq) return;
  product({tiles, round_up_16(call.head_size) / 16, width / 32, row_operand(f.ds, w.e.ld_half_keys),
           tile_operand(f.k, w.steps), f.dq, w.e.size, false});
  float scales[kTile];
  for (float& scale : scales) scale = call.scale;
  store_rows(f.dq, w.e.size, scales, rows, call.head_size,
             head_begin(call.dq, call, w.b, w.h, tile, call.queries, call.stride_q), call.stride_q);
}

/// A chunk of queries: dq, and its share of dk^T = q^T ds and dv^T = dout^T p.
void backward_chunk(const Head& w, int64_t chunk, int64_t rows, bool add) {
  const AttentionCall& call = w.call;
  const BackwardBuffers& f = w.f;
  const int64_t width = round_up_32(widest_row(call, w.b, chunk, chunk + rows));
  for (int64_t tile = 0; tile < rows; tile += kTile)
    backward_tile(w, chunk, chunk + tile, rows - tile < kTile ? rows - tile : kTile, width);
  const int64_t steps = round_up_32(rows) / 32, size_tiles = round_up_16(call.head_size) / 16, size = call.head_size;
  if (call.dk) {
    amx::copy_transposed_rows(head_begin(call.q, call, w.b, w.h, chunk, call.queries, call.stride_q), call.stride_q,
                              rows, size, w.e.size, steps, f.q_transposed);
    product({size_tiles, width / 16, steps, tile_operand(f.q_transposed, steps), step_operand(f.ds_pairs, width / 16),
             f.dk_transposed, w.e.ld_keys, add});
  }
  if (call.dv) {
    amx::copy_transposed_rows(head_begin(call.dout, call, w.b, w.h, chunk, call.queries, w.contiguous), w.contiguous,
                              rows, size, w.e.size, steps, f.dout_transposed);
    product({size_tiles, width / 16, steps, tile_operand(f.dout_transposed, steps), step_operand(f.p_pairs, width / 16),
             f.dv_transposed, w.e.ld_keys, add});
  }
}

/// Rows (keys) of bf16 from their transpose in f32, times `scale`; zeros for keys from `seen` on.
void store_transposed(const Head& w, const float* transposed, float scale, int64_t seen, uint16_t* dst,
                      int64_t stride) {
  const int64_t keys = w.call.keys, size = w.call.head_size;
  for (int64_t s = 0; s < keys; s += 16)
    for (int64_t d = 0; d < size; d += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i)
        block[i] = s < seen ? _mm512_load_si512(transposed + (d + i) * w.e.ld_keys + s) : _mm512_setzero_si512();
      avx512::transpose_16x16(block);
      for (int64_t i = 0; i < 16 && s + i < keys; ++i)
        Bf16Lanes::store(dst + (s + i) * stride + d, _mm512_mul_ps(_mm512_castsi512_ps(block[i]), set1(scale)),
                         first_lanes(size - d));
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

void attention_forward_amx(const AttentionCall& call, int64_t b, int64_t h, int64_t begin, int64_t end,
                           uintptr_t memory) {
  const amx::TileSession tiles_in_use;
  const Extents e(call.head_size, call.keys);
  AttentionScratch scratch{memory};
  const ForwardBuffers f = lay_out_forward(e, scratch);
  const int64_t seen = widest_row(call, b, begin, end), key_steps = round_up_32(seen) / 32;
  amx::copy_transposed(head_begin(call.k, call, b, h, 0, call.keys, call.stride_k), call.stride_k, seen, call.head_size,
                       e.size, f.k_transposed);
  amx::copy_pairs(head_begin(call.v, call, b, h, 0, call.keys, call.stride_v), call.stride_v, seen, call.head_size,
                  e.size, key_steps, f.v);
  for (int64_t tile = begin; tile < end; tile += kTile)
    forward_tile(call, e, f, b, h, tile, end - tile < kTile ? end - tile : kTile, key_steps);
}

void attention_backward_amx(const AttentionCall& call, int64_t b, int64_t h, uintptr_t memory) {
  const amx::TileSession tiles_in_use;
  const Extents e(call.head_size, call.keys);
  AttentionScratch scratch{memory};
  const int64_t chunk = query_chunk(call.queries, call.keys);
  const BackwardBuffers f = lay_out_backward(e, chunk, scratch);
  const int64_t seen = widest_row(call, b, 0, call.queries), columns = round_up_32(seen);
  const Head w{call, e, f, b, h, call.heads * call.head_size, columns / 32};
  const uint16_t* k = head_begin(call.k, call, b, h, 0, call.keys, call.stride_k);
  const uint16_t* v = head_begin(call.v, call, b, h, 0, call.keys, call.stride_v);
  amx::copy_transposed(k, call.stride_k, seen, call.head_size, e.size, f.k_transposed);
  if (call.dq || call.dk) amx::copy_transposed(v, call.stride_v, seen, call.head_size, e.size, f.v_transposed);
  if (call.dq) amx::copy_pairs(k, call.stride_k, seen, call.head_size, e.size, w.steps, f.k);
  // The first chunk writes the sums and the others add, unless others see keys that the first does not (causal masks).
  const bool add_all = round_up_32(widest_row(call, b, 0, call.queries < chunk ? call.queries : chunk)) < columns;
  for (int64_t d = 0; add_all && d < e.size; ++d)
    for (int64_t s = 0; s < columns; s += 16) {
      F32Lanes::store(f.dk_transposed + d * e.ld_keys + s, _mm512_setzero_ps());
      F32Lanes::store(f.dv_transposed + d * e.ld_keys + s, _mm512_setzero_ps());
    }
  for (int64_t begin = 0; begin < call.queries; begin += chunk)
    backward_chunk(w, begin, call.queries - begin < chunk ? call.queries - begin : chunk, add_all || begin > 0);
  if (call.dk)
    store_transposed(w, f.dk_transposed, call.scale, seen, head_begin(call.dk, call, b, h, 0, call.keys, call.stride_k),
                     call.stride_k);
  if (call.dv)
    store_transposed(w, f.dv_transposed, 1.0f, seen, head_begin(call.dv, call, b, h, 0, call.keys, call.stride_v),
                     call.stride_v);
}

}  // namespace permafrost
