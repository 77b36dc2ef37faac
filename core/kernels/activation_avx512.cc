#include "core/kernels/activation_cpu.h"
#include "core/kernels/vector_math_avx512.h"

namespace permafrost {

namespace {
using avx512::fma;
using avx512::set1;

constexpr float kInvSqrt2Pi = 0.39894228040143268f;
constexpr float kQuick = 1.702f;

/// Normal distribution function at x, and e^(-x^2/2).
struct Normal {
  __m512 below, gauss;
};
inline Normal normal(__m512 x) {
  const __m512 u = avx512::abs(x);
  const __m512 gauss = avx512::gauss(u);
  const __m512 tail = _mm512_mul_ps(gauss, avx512::normal_tail_factor(u));
  const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
  return {_mm512_mask_sub_ps(tail, static_cast<__mmask16>(~negative), set1(1.0f), tail), gauss};
}

inline __m512 relu(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }  // this order keeps NaN

template <Activation A>
__m512 value(__m512 x) {
  if constexpr (A == Activation::kGelu) return _mm512_mul_ps(x, normal(x).below);
  if constexpr (A == Activation::kQuickGelu) return _mm512_mul_ps(x, avx512::sigmoid(_mm512_mul_ps(set1(kQuick), x)));
  if constexpr (A == Activation::kRelu) return relu(x);
  if constexpr (A == Activation::kSquaredRelu) return _mm512_mul_ps(relu(x), relu(x));
  if constexpr (A == Activation::kTanh) return avx512::tanh(x);
  return x;
}

template <Activation A>
__m512 gradient(__m512 kept, __m512 dy) {
  if constexpr (A == Activation::kGelu) {
    const Normal n = normal(kept);
    return _mm512_mul_ps(dy, fma(kept, _mm512_mul_ps(set1(kInvSqrt2Pi), n.gauss), n.below));
  }
  if constexpr (A == Activation::kQuickGelu) {
    const __m512 s = avx512::sigmoid(_mm512_mul_ps(set1(kQuick), kept));
    const __m512 rest = _mm512_mul_ps(s, _mm512_sub_ps(set1(1.0f), s));
    return _mm512_mul_ps(dy, fma(_mm512_mul_ps(set1(kQuick), kept), rest, s));
  }
  if constexpr (A == Activation::kRelu) {
    const __mmask16 open = _mm512_cmp_ps_mask(kept, _mm512_setzero_ps(), _CMP_NLE_UQ);
    return _mm512_mul_ps(dy, _mm512_maskz_mov_ps(open, set1(1.0f)));
  }
  if constexpr (A == Activation::kSquaredRelu) return _mm512_mul_ps(dy, _mm512_mul_ps(set1(2.0f), relu(kept)));
  if constexpr (A == Activation::kTanh) return _mm512_mul_ps(dy, _mm512_fnmadd_ps(kept, kept, set1(1.0f)));
  return dy;
}

template <typename Lanes, Activation A>
void forward(const void* x_raw, void* y_raw, int64_t n) {
  const auto* x = static_cast<const typename Lanes::Stored*>(x_raw);
  auto* y = static_cast<typename Lanes::Stored*>(y_raw);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) Lanes::store(y + i, value<A>(Lanes::load(x + i)));
  if (i < n) {
    const __mmask16 tail = avx512::first_lanes(n - i);
    Lanes::store(y + i, value<A>(Lanes::load(x + i, tail)), tail);
  }
}

template <typename Lanes, Activation A, bool kAdd>
void backward(const void* kept_raw, const void* dy_raw, void* dx_raw, int64_t n) {
  using Stored = typename Lanes::Stored;
  const auto* kept = static_cast<const Stored*>(kept_raw);
  const auto* dy = static_cast<const Stored*>(dy_raw);
  auto* dx = static_cast<Stored*>(dx_raw);
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = avx512::first_lanes(n - i);
    __m512 g = gradient<A>(Lanes::load(kept + i, lanes), Lanes::load(dy + i, lanes));
    if constexpr (kAdd) g = _mm512_add_ps(Lanes::load(dx + i, lanes), g);
    Lanes::store(dx + i, g, lanes);
  }
}

template <Activation A>
void forward(bool bf16, const void* x, void* y, int64_t n) {
  bf16 ? forward<avx512::Bf16Lanes, A>(x, y, n) : forward<avx512::F32Lanes, A>(x, y, n);
}

template <Activation A>
void backward(bool bf16, const void* kept, const void* dy, void* dx, int64_t n, bool add) {
  if (bf16)
    add ? backward<avx512::Bf16Lanes, A, true>(kept, dy, dx, n) : backward<avx512::Bf16Lanes, A, false>(kept, dy, dx, n);
  else
    add ? backward<avx512::F32Lanes, A, true>(kept, dy, dx, n) : backward<avx512::F32Lanes, A, false>(kept, dy, dx, n);
}
}  // namespace

void activation_forward_avx512(Activation activation, bool bf16, const void* x, void* y, int64_t n) {
  switch (activation) {
    case Activation::kNone: return forward<Activation::kNone>(bf16, x, y, n);
    case Activation::kGelu: return forward<Activation::kGelu>(bf16, x, y, n);
    case Activation::kQuickGelu: return forward<Activation::kQuickGelu>(bf16, x, y, n);
    case Activation::kRelu: return forward<Activation::kRelu>(bf16, x, y, n);
    case Activation::kSquaredRelu: return forward<Activation::kSquaredRelu>(bf16, x, y, n);
    case Activation::kTanh: return forward<Activation::kTanh>(bf16, x, y, n);
  }
}

void activation_backward_avx512(Activation activation, bool bf16, const void* kept, const void* dy, void* dx, int64_t n,
                                bool add) {
  switch (activation) {
    case Activation::kNone: return backward<Activation::kNone>(bf16, kept, dy, dx, n, add);
    case Activation::kGelu: return backward<Activation::kGelu>(bf16, kept, dy, dx, n, add);
    case Activation::kQuickGelu: return backward<Activation::kQuickGelu>(bf16, kept, dy, dx, n, add);
    case Activation::kRelu: return backward<Activation::kRelu>(bf16, kept, dy, dx, n, add);
    case Activation::kSquaredRelu: return backward<Activation::kSquaredRelu>(bf16, kept, dy, dx, n, add);
    case Activation::kTanh: return backward<Activation::kTanh>(bf16, kept, dy, dx, n, add);
  }
}

}  // namespace permafrost
