#include "core/kernels/attention_cpu.h"
#include "core/kernels/attention_lanes_avx512.h"

namespace permafrost {

namespace {
using avx512::Bf16Lanes;
using avx512::F32Lanes;
using avx512::first_lanes;
using avx512::fma;
using avx512::set1;

template <typename Lanes>
void load(const void* src_raw, int64_t stride, int64_t rows, int64_t n, float* dst, int64_t ld) {
  const auto* src = static_cast<const typename Lanes::Stored*>(src_raw);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < ld; i += 16)
      F32Lanes::store(dst + r * ld + i, Lanes::load(src + r * stride + i, first_lanes(n - i)));
}

template <typename Lanes>
void store(const float* src, int64_t ld, const float* row_scale, int64_t rows, int64_t n, void* dst_raw,
           int64_t stride) {
  auto* dst = static_cast<typename Lanes::Stored*>(dst_raw);
  for (int64_t r = 0; r < rows; ++r) {
    const __m512 scale = set1(row_scale ? row_scale[r] : 1.0f);
    for (int64_t i = 0; i < n; i += 16)
      Lanes::store(dst + r * stride + i, _mm512_mul_ps(F32Lanes::load(src + r * ld + i), scale), first_lanes(n - i));
  }
}

void load_rows(bool bf16, const void* src, int64_t stride, int64_t rows, int64_t n, float* dst, int64_t ld) {
  bf16 ? load<Bf16Lanes>(src, stride, rows, n, dst, ld) : load<F32Lanes>(src, stride, rows, n, dst, ld);
}

void store_rows(bool bf16, const float* src, int64_t ld, const float* row_scale, int64_t rows, int64_t n, void* dst,
                int64_t stride) {
  bf16 ? store<Bf16Lanes>(src, ld, row_scale, rows, n, dst, stride)
       : store<F32Lanes>(src, ld, row_scale, rows, n, dst, stride);
}

/// rows a multiple of 16; columns any (those of src are padded to 16).
void transpose(const float* src, int64_t ld_src, int64_t rows, int64_t columns, float* dst, int64_t ld_dst) {
  for (int64_t r = 0; r < rows; r += 16)
    for (int64_t c = 0; c < columns; c += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i) block[i] = _mm512_loadu_si512(src + (r + i) * ld_src + c);
      avx512::transpose_16x16(block);
      const int64_t count = columns - c < 16 ? columns - c : 16;
      for (int64_t i = 0; i < count; ++i) _mm512_storeu_si512(dst + (c + i) * ld_dst + r, block[i]);
    }
}

/// kRows x (16 kVectors) of c in registers, over all of k.
template <int kRows, int kVectors>
void block_product(const AttentionProduct& p, int64_t i, int64_t j) {
  __m512 sum[kRows][kVectors];
  float* c = p.c + i * p.ldc + j;
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = p.add ? F32Lanes::load(c + r * p.ldc + 16 * v) : _mm512_setzero_ps();
  const float* a = p.a + i * p.a_row;
  const float* b = p.b + j;
  for (int64_t q = 0; q < p.k; ++q, a += p.a_col, b += p.ldb) {
    __m512 column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = F32Lanes::load(b + 16 * v);
    for (int r = 0; r < kRows; ++r) {
      const __m512 factor = set1(a[r * p.a_row]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(factor, column[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) F32Lanes::store(c + r * p.ldc + 16 * v, sum[r][v]);
}

template <int kVectors>
void columns_product(const AttentionProduct& p, int64_t j) {
  int64_t i = 0;
  for (; i + 6 <= p.m; i += 6) block_product<6, kVectors>(p, i, j);
  switch (p.m - i) {
    case 5:
      return block_product<5, kVectors>(p, i, j);
    case 4:
      return block_product<4, kVectors>(p, i, j);
    case 3:
      return block_product<3, kVectors>(p, i, j);
    case 2:
      return block_product<2, kVectors>(p, i, j);
    case 1:
      return block_product<1, kVectors>(p, i, j);
    default:
      return;
  }
}

void product(const AttentionProduct& p) {
  int64_t j = 0;
  for (; j + 64 <= p.n; j += 64) columns_product<4>(p, j);
  switch ((p.n - j) / 16) {
    case 3:
      return columns_product<3>(p, j);
    case 2:
      return columns_product<2>(p, j);
    case 1:
      return columns_product<1>(p, j);
    default:
      return;
  }
}

float dot(const float* a, const float* b, int64_t n) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = first_lanes(n - i);
    sum = fma(F32Lanes::load(a + i, lanes), F32Lanes::load(b + i, lanes), sum);
  }
  return _mm512_reduce_add_ps(sum);
}

AttentionRowSum softmax_row(float* row, int64_t visible, int64_t width, const uint8_t* allowed, float scale) {
  const __m512 factor = set1(scale);
  __m512 maximum = set1(-__builtin_inff());
  unsigned seen = 0;
  for (int64_t s = 0; s < visible; s += 16) {
    const __mmask16 lanes = avx512::seen_keys(s, visible, allowed);
    seen |= lanes;
    maximum = _mm512_mask_max_ps(maximum, lanes, maximum, _mm512_mul_ps(F32Lanes::load(row + s), factor));
  }
  const float top = _mm512_reduce_max_ps(maximum);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t s = 0; s < width; s += 16) {
    const __mmask16 lanes = avx512::seen_keys(s, visible, allowed);
    const __m512 e = avx512::exp_not_positive(avx512::fma(F32Lanes::load(row + s), factor, set1(-top)));
    const __m512 kept = _mm512_maskz_mov_ps(lanes, e);
    sum = _mm512_add_ps(sum, kept);
    F32Lanes::store(row + s, kept);
  }
  if (!seen) return {0.0f, -__builtin_inff()};
  const float total = _mm512_reduce_add_ps(sum);
  return {1.0f / total, top + _mm512_cvtss_f32(avx512::log_normal(set1(total)))};
}

void backward_row(float* scores, float* dp, int64_t visible, int64_t width, const uint8_t* allowed, float scale,
                  float lse, float delta) {
  for (int64_t s = 0; s < width; s += 16) {
    const __mmask16 lanes = avx512::seen_keys(s, visible, allowed);
    const __m512 p = _mm512_maskz_mov_ps(lanes, avx512::exp(fma(F32Lanes::load(scores + s), set1(scale), set1(-lse))));
    const __m512 inner = _mm512_sub_ps(F32Lanes::load(dp + s), set1(delta));
    F32Lanes::store(scores + s, p);
    F32Lanes::store(dp + s, _mm512_maskz_mul_ps(lanes, _mm512_mul_ps(p, set1(scale)), inner));
  }
}
}  // namespace

const AttentionOps& attention_ops_avx512() {
  static constexpr AttentionOps kOps{load_rows, store_rows, transpose, product, dot, softmax_row, backward_row};
  return kOps;
}

}  // namespace permafrost
