#include "core/kernels/activation_cpu.h"
#include "core/kernels/activation_lanes_avx512.h"
#include "core/kernels/vector_math_avx512.h"

namespace permafrost {

namespace {
using avx512::activated;
using avx512::fma;
using avx512::kQuickGelu;
using avx512::reflect;
using avx512::relu;
using avx512::set1;

/// Derivative of x Phi(x): reflect(x, g(|x|) e^(-x^2/2)), where g(u) = Q(u) e^(u^2/2) - u / sqrt(2 pi) is smooth. g by
/// a fit weighted with e^(-u^2/2): absolute error of the derivative 7e-8.
PERMAFROST_LANES __m512 gelu_slope(__m512 x) {
  const __m512 u = avx512::at_most(14.0f, avx512::abs(x));  // e^-98: nothing is left
  const __m512 g = avx512::polynomial(
      u, {0.4999999404f, -0.7978788018f, 0.2499166876f, -0.1325133443f, 0.0611539036f, -0.02431272343f, 0.007938509807f,
          -0.001974238548f, 0.0003396371612f, -3.51935123e-5f, 1.630854854e-6f});
  const __m512 gauss = avx512::exp2_finite(_mm512_mul_ps(_mm512_mul_ps(u, u), set1(-0.72134752044f)));
  return reflect(x, _mm512_mul_ps(g, gauss));
}

/// The same for results stored in bf16: error 1.6e-5 + 1e-4 of the value.
PERMAFROST_LANES __m512 gelu_slope_for_bf16(__m512 x) {
  const __m512 u = avx512::at_most(14.0f, avx512::abs(x));
  const __m512 g = avx512::horner(u, {0.4999842942f, -0.7971517444f, 0.2444232404f, -0.1169406027f, 0.03967186809f,
                                      -0.008041757159f, 0.0007042139187f});
  const __m512 gauss = avx512::exp2_for_bf16(_mm512_mul_ps(_mm512_mul_ps(u, u), set1(-0.72134752044f)));
  return reflect(x, _mm512_mul_ps(g, gauss));
}

template <Activation A, bool kBf16>
PERMAFROST_LANES __m512 gradient(__m512 kept, __m512 dy) {
  if constexpr (A == Activation::kGelu) return _mm512_mul_ps(dy, kBf16 ? gelu_slope_for_bf16(kept) : gelu_slope(kept));
  if constexpr (A == Activation::kQuickGelu) {
    const __m512 z = _mm512_mul_ps(set1(kQuickGelu), kept),
                 s = kBf16 ? avx512::sigmoid_for_bf16(z) : avx512::sigmoid(z);
    const __m512 rest = _mm512_mul_ps(s, _mm512_sub_ps(set1(1.0f), s));
    return _mm512_mul_ps(dy, fma(_mm512_mul_ps(set1(kQuickGelu), kept), rest, s));
  }
  if constexpr (A == Activation::kRelu) {
    const __mmask16 open = _mm512_cmp_ps_mask(kept, _mm512_setzero_ps(), _CMP_NLE_UQ);
    return _mm512_mul_ps(dy, _mm512_maskz_mov_ps(open, set1(1.0f)));
  }
  if constexpr (A == Activation::kSquaredRelu) return _mm512_mul_ps(dy, _mm512_mul_ps(set1(2.0f), relu(kept)));
  if constexpr (A == Activation::kTanh) return _mm512_mul_ps(dy, _mm512_fnmadd_ps(kept, kept, set1(1.0f)));
  return dy;
}

/// These loops are long enough per element that the processor does not run ahead to the next misses by itself.
PERMAFROST_LANES void fetch_ahead(const void* p) { _mm_prefetch(static_cast<const char*>(p) + 1024, _MM_HINT_T0); }

template <typename Lanes>
constexpr bool kStoresBf16 = sizeof(typename Lanes::Stored) == 2;

template <typename Lanes, Activation A>
void forward(const void* x_raw, void* y_raw, int64_t n) {
  const auto* x = static_cast<const typename Lanes::Stored*>(x_raw);
  auto* y = static_cast<typename Lanes::Stored*>(y_raw);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    fetch_ahead(x + i);
    fetch_ahead(y + i);
    Lanes::store(y + i, activated<A, kStoresBf16<Lanes>>(Lanes::load(x + i)));
  }
  if (i < n) {
    const __mmask16 tail = avx512::first_lanes(n - i);
    Lanes::store(y + i, activated<A, kStoresBf16<Lanes>>(Lanes::load(x + i, tail)), tail);
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
    fetch_ahead(kept + i);
    fetch_ahead(dy + i);
    fetch_ahead(dx + i);
    __m512 g = gradient<A, kStoresBf16<Lanes>>(Lanes::load(kept + i, lanes), Lanes::load(dy + i, lanes));
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
    add ? backward<avx512::Bf16Lanes, A, true>(kept, dy, dx, n)
        : backward<avx512::Bf16Lanes, A, false>(kept, dy, dx, n);
  else
    add ? backward<avx512::F32Lanes, A, true>(kept, dy, dx, n) : backward<avx512::F32Lanes, A, false>(kept, dy, dx, n);
}
}  // namespace

void activation_forward_avx512(Activation activation, bool bf16, const void* x, void* y, int64_t n) {
  switch (activation) {
    case Activation::kNone:
      return forward<Activation::kNone>(bf16, x, y, n);
    case Activation::kGelu:
      return forward<Activation::kGelu>(bf16, x, y, n);
    case Activation::kQuickGelu:
      return forward<Activation::kQuickGelu>(bf16, x, y, n);
    case Activation::kRelu:
      return forward<Activation::kRelu>(bf16, x, y, n);
    case Activation::kSquaredRelu:
      return forward<Activation::kSquaredRelu>(bf16, x, y, n);
    case Activation::kTanh:
      return forward<Activation::kTanh>(bf16, x, y, n);
  }
}

void activation_backward_avx512(Activation activation, bool bf16, const void* kept, const void* dy, void* dx, int64_t n,
                                bool add) {
  switch (activation) {
    case Activation::kNone:
      return backward<Activation::kNone>(bf16, kept, dy, dx, n, add);
    case Activation::kGelu:
      return backward<Activation::kGelu>(bf16, kept, dy, dx, n, add);
    case Activation::kQuickGelu:
      return backward<Activation::kQuickGelu>(bf16, kept, dy, dx, n, add);
    case Activation::kRelu:
      return backward<Activation::kRelu>(bf16, kept, dy, dx, n, add);
    case Activation::kSquaredRelu:
      return backward<Activation::kSquaredRelu>(bf16, kept, dy, dx, n, add);
    case Activation::kTanh:
      return backward<Activation::kTanh>(bf16, kept, dy, dx, n, add);
  }
}

}  // namespace permafrost
