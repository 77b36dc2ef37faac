#include "core/kernels/layer_norm_cpu.h"
#include "core/kernels/vector_math_avx512.h"

namespace permafrost {

namespace {
using avx512::F32Lanes;
using avx512::first_lanes;
using avx512::fma;
using avx512::for_vectors;
using avx512::set1;

/// Sum over a row of body(i, mask), whose masked-off lanes are 0: four running vectors in turn hide the latency of the
/// addition.
template <typename Body>
PERMAFROST_LANES float sum(int64_t width, Body body) {
  __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 64 <= width; i += 64) {
    a = _mm512_add_ps(a, body(i, __mmask16{0xffff}));
    b = _mm512_add_ps(b, body(i + 16, __mmask16{0xffff}));
    c = _mm512_add_ps(c, body(i + 32, __mmask16{0xffff}));
    d = _mm512_add_ps(d, body(i + 48, __mmask16{0xffff}));
  }
  for (; i < width; i += 16) a = _mm512_add_ps(a, body(i, first_lanes(width - i)));
  return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
}

/// Rows up to this width are kept in f32 on the stack between passes, which saves converting bf16 again.
constexpr int64_t kKept = 4096;

/// Second and third pass over one row: variance, then y. `From` says how x is stored.
template <typename From, typename Lanes>
PERMAFROST_LANES float normalise(const LayerNormForwardRows& a, const typename From::Stored* x,
                                 typename Lanes::Stored* y, float mean) {
  const __m512 center = set1(mean);
  const float squares = sum(
      a.width, [&](int64_t i, __mmask16 m) __attribute__((always_inline)) {
        const __m512 d = _mm512_maskz_sub_ps(m, From::load(x + i, m), center);
        return _mm512_mul_ps(d, d);
      });
  const float rstd = 1.0f / __builtin_sqrtf(squares / static_cast<float>(a.width) + a.eps);
  for_vectors(
      a.width, [&](int64_t i, __mmask16 m) __attribute__((always_inline)) {
        const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(From::load(x + i, m), center), set1(rstd));
        Lanes::store(y + i, fma(normal, F32Lanes::load(a.gain + i, m), F32Lanes::load(a.bias + i, m)), m);
      });
  return rstd;
}

template <typename Lanes>
void forward(const LayerNormForwardRows& a) {
  using Stored = typename Lanes::Stored;
  alignas(64) float kept[kKept];
  const bool keep = sizeof(Stored) < sizeof(float) && a.width <= kKept;
  for (int64_t row = 0; row < a.rows; ++row) {
    const Stored* x = static_cast<const Stored*>(a.x) + row * a.width;
    Stored* y = static_cast<Stored*>(a.y) + row * a.width;
    const float total = sum(
        a.width, [&](int64_t i, __mmask16 m) __attribute__((always_inline)) {
          const __m512 v = Lanes::load(x + i, m);
          _mm_prefetch(reinterpret_cast<const char*>(x + a.width + i), _MM_HINT_T0);
          _mm_prefetch(reinterpret_cast<const char*>(y + a.width + i), _MM_HINT_T0);
          if (keep) F32Lanes::store(kept + i, v, m);
          return v;
        });
    const float mean = total / static_cast<float>(a.width);
    const float rstd = keep ? normalise<F32Lanes, Lanes>(a, kept, y, mean) : normalise<Lanes, Lanes>(a, x, y, mean);
    if (a.mean) a.mean[row] = mean;
    if (a.rstd) a.rstd[row] = rstd;
  }
}

/// The two means over a row that dx needs.
struct RowMeans {
  float gradient, times_normal;
};

/// n = (x - mean) rstd and g = dy gain of one row, computed from memory.
template <typename Lanes>
struct Computed {
  const typename Lanes::Stored *dy, *x;
  const float* gain;
  __m512 mean, rstd;
  PERMAFROST_LANES __m512 normal(int64_t i, __mmask16 m) const {
    return _mm512_mul_ps(_mm512_sub_ps(Lanes::load(x + i, m), mean), rstd);
  }
  PERMAFROST_LANES __m512 scaled(int64_t i, __mmask16 m) const {
    return _mm512_mul_ps(Lanes::load(dy + i, m), F32Lanes::load(gain + i, m));
  }
};

/// The same, kept by the first pass.
struct Kept {
  alignas(64) float n[kKept], g[kKept];
  PERMAFROST_LANES __m512 normal(int64_t i, __mmask16 m) const { return F32Lanes::load(n + i, m); }
  PERMAFROST_LANES __m512 scaled(int64_t i, __mmask16 m) const { return F32Lanes::load(g + i, m); }
};

template <typename Lanes, typename Row>
PERMAFROST_LANES void input_gradient(const LayerNormBackwardRows& a, int64_t row, RowMeans means, const Row& values) {
  using Stored = typename Lanes::Stored;
  Stored* dx = static_cast<Stored*>(a.dx) + row * a.width;
  const __m512 rstd = set1(a.rstd[row]), mean_g = set1(means.gradient), mean_gn = set1(means.times_normal);
  for_vectors(
      a.width, [&](int64_t i, __mmask16 m) __attribute__((always_inline)) {
        const __m512 inner = _mm512_fnmadd_ps(values.normal(i, m), mean_gn, _mm512_sub_ps(values.scaled(i, m), mean_g));
        const __m512 gradient = _mm512_mul_ps(inner, rstd);
        Lanes::store(dx + i, a.add_dx ? _mm512_add_ps(Lanes::load(dx + i, m), gradient) : gradient, m);
      });
}

/// One pass over dy and x of a row: whatever is wanted of the means, dgain and dbias. `keep`: null or where n and g go.
template <typename Lanes, bool kMeans, bool kGain, bool kBias>
PERMAFROST_LANES RowMeans reduce_row(const LayerNormBackwardRows& a, const Computed<Lanes>& row, Kept* keep) {
  __m512 sums[2][2] = {{_mm512_setzero_ps(), _mm512_setzero_ps()}, {_mm512_setzero_ps(), _mm512_setzero_ps()}};
  const auto add = [&](int64_t i, __mmask16 m, int turn) __attribute__((always_inline)) {
    const __m512 gradient = Lanes::load(row.dy + i, m);  // masked-off lanes are 0 and stay out of every sum
    _mm_prefetch(reinterpret_cast<const char*>(row.dy + a.width + i), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(row.x + a.width + i), _MM_HINT_T0);
    __m512 normal = _mm512_setzero_ps();
    if constexpr (kMeans || kGain) normal = _mm512_maskz_mov_ps(m, row.normal(i, m));
    if constexpr (kGain) F32Lanes::store(a.dgain + i, fma(gradient, normal, F32Lanes::load(a.dgain + i, m)), m);
    if constexpr (kBias) F32Lanes::store(a.dbias + i, _mm512_add_ps(F32Lanes::load(a.dbias + i, m), gradient), m);
    if constexpr (kMeans) {
      const __m512 scaled = _mm512_mul_ps(gradient, F32Lanes::load(row.gain + i, m));
      sums[0][turn] = _mm512_add_ps(sums[0][turn], scaled);
      sums[1][turn] = fma(scaled, normal, sums[1][turn]);
      if (keep) F32Lanes::store(keep->n + i, normal, m), F32Lanes::store(keep->g + i, scaled, m);
    }
  };
  int64_t i = 0;
  for (; i + 32 <= a.width; i += 32) {
    add(i, __mmask16{0xffff}, 0);
    add(i + 16, __mmask16{0xffff}, 1);
  }
  for (; i < a.width; i += 16) add(i, first_lanes(a.width - i), 0);
  const float count = static_cast<float>(a.width);
  return {_mm512_reduce_add_ps(_mm512_add_ps(sums[0][0], sums[0][1])) / count,
          _mm512_reduce_add_ps(_mm512_add_ps(sums[1][0], sums[1][1])) / count};
}

template <typename Lanes, bool kMeans, bool kGain, bool kBias>
void backward(const LayerNormBackwardRows& a) {
  using Stored = typename Lanes::Stored;
  Kept kept;
  const bool keep = a.width <= kKept;
  for (int64_t row = 0; row < a.rows; ++row) {
    const Computed<Lanes> computed{static_cast<const Stored*>(a.dy) + row * a.width,
                                   static_cast<const Stored*>(a.x) + row * a.width, a.gain, set1(a.mean[row]),
                                   set1(a.rstd[row])};
    const RowMeans means = reduce_row<Lanes, kMeans, kGain, kBias>(a, computed, keep ? &kept : nullptr);
    if constexpr (kMeans) {
      if (keep)
        input_gradient<Lanes>(a, row, means, kept);
      else
        input_gradient<Lanes>(a, row, means, computed);
    }
  }
}

void set_to_zero(float* values, int64_t n) {
  for_vectors(n, [&](int64_t i, __mmask16 m) { F32Lanes::store(values + i, _mm512_setzero_ps(), m); });
}

template <typename Lanes>
void backward(const LayerNormBackwardRows& a) {
  if (a.dgain) set_to_zero(a.dgain, a.width);
  if (a.dbias) set_to_zero(a.dbias, a.width);
  switch ((a.dx ? 4 : 0) + (a.dgain ? 2 : 0) + (a.dbias ? 1 : 0)) {
    case 7:
      return backward<Lanes, true, true, true>(a);
    case 6:
      return backward<Lanes, true, true, false>(a);
    case 5:
      return backward<Lanes, true, false, true>(a);
    case 4:
      return backward<Lanes, true, false, false>(a);
    case 3:
      return backward<Lanes, false, true, true>(a);
    case 2:
      return backward<Lanes, false, true, false>(a);
    case 1:
      return backward<Lanes, false, false, true>(a);
    default:
      return;
  }
}
}  // namespace

void layer_norm_forward_avx512(const LayerNormForwardRows& args) {
  args.bf16 ? forward<avx512::Bf16Lanes>(args) : forward<F32Lanes>(args);
}

void layer_norm_backward_avx512(const LayerNormBackwardRows& args) {
  args.bf16 ? backward<avx512::Bf16Lanes>(args) : backward<F32Lanes>(args);
}

}  // namespace permafrost
