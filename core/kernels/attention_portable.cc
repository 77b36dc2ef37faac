#include <algorithm>
#include <cmath>
#include <limits>

#include "core/kernels/attention_cpu.h"
#include "core/tensor/dtype.h"

namespace permafrost {

namespace {
template <typename T>
void load(const T* src, int64_t stride, int64_t rows, int64_t n, float* dst, int64_t ld) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) dst[r * ld + i] = static_cast<float>(src[r * stride + i]);
    std::fill(dst + r * ld + n, dst + (r + 1) * ld, 0.0f);
  }
}

template <typename T>
void store(const float* src, int64_t ld, const float* row_scale, int64_t rows, int64_t n, T* dst, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = row_scale ? row_scale[r] : 1.0f;
    for (int64_t i = 0; i < n; ++i) dst[r * stride + i] = T(src[r * ld + i] * scale);
  }
}

void load_rows(bool bf16, const void* src, int64_t stride, int64_t rows, int64_t n, float* dst, int64_t ld) {
  bf16 ? load(static_cast<const bfloat16*>(src), stride, rows, n, dst, ld)
       : load(static_cast<const float*>(src), stride, rows, n, dst, ld);
}

void store_rows(bool bf16, const float* src, int64_t ld, const float* row_scale, int64_t rows, int64_t n, void* dst,
                int64_t stride) {
  bf16 ? store(src, ld, row_scale, rows, n, static_cast<bfloat16*>(dst), stride)
       : store(src, ld, row_scale, rows, n, static_cast<float*>(dst), stride);
}

void transpose(const float* src, int64_t ld_src, int64_t rows, int64_t columns, float* dst, int64_t ld_dst) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r) dst[c * ld_dst + r] = src[r * ld_src + c];
}

void product(const AttentionProduct& p) {
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < p.n; j += 16) {
      float sum[16] = {};
      float* c = p.c + i * p.ldc + j;
      if (p.add) std::copy_n(c, 16, sum);
      for (int64_t q = 0; q < p.k; ++q) {
        const float a = p.a[i * p.a_row + q * p.a_col];
        const float* b = p.b + q * p.ldb + j;
        for (int lane = 0; lane < 16; ++lane) sum[lane] += a * b[lane];
      }
      std::copy_n(sum, 16, c);
    }
}

float dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

AttentionRowSum softmax_row(float* row, int64_t visible, int64_t width, const uint8_t* allowed, float scale) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float maximum = -kInfinity;
  int64_t seen = 0;
  for (int64_t s = 0; s < visible; ++s) {
    if (allowed && !allowed[s]) continue;
    maximum = std::max(maximum, scale * row[s]);
    ++seen;
  }
  float sum = 0.0f;
  for (int64_t s = 0; s < visible; ++s) {
    row[s] = allowed && !allowed[s] ? 0.0f : std::exp(scale * row[s] - maximum);
    sum += row[s];
  }
  std::fill(row + visible, row + width, 0.0f);
  if (seen == 0) return {0.0f, -kInfinity};
  return {1.0f / sum, maximum + std::log(sum)};
}

void backward_row(float* scores, float* dp, int64_t visible, int64_t width, const uint8_t* allowed, float scale,
                  float lse, float delta) {
  for (int64_t s = 0; s < visible; ++s) {
    const bool hidden = allowed && !allowed[s];
    scores[s] = hidden ? 0.0f : std::exp(scale * scores[s] - lse);
    dp[s] = hidden ? 0.0f : scale * scores[s] * (dp[s] - delta);
  }
  std::fill(scores + visible, scores + width, 0.0f);
  std::fill(dp + visible, dp + width, 0.0f);
}
}  // namespace

const AttentionOps& attention_ops_portable() {
  static constexpr AttentionOps kOps{load_rows, store_rows, transpose, product, dot, softmax_row, backward_row};
  return kOps;
}

}  // namespace permafrost
