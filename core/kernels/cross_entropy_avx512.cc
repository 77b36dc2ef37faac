#include "core/kernels/cross_entropy_cpu.h"
#include "core/kernels/vector_math_avx512.h"

namespace permafrost::cpu {

namespace {

using avx512::Bf16Lanes;
using avx512::F32Lanes;

constexpr float kLowest = -__builtin_inff();

/// 64 logits in four vectors, those of bf16 in the order that costs least; and e^x to what their dtype deserves.
PERMAFROST_LANES void load_64(const float* logits, __m512 (&x)[4]) {
  for (int j = 0; j < 4; ++j) x[j] = _mm512_loadu_ps(logits + 16 * j);
}
PERMAFROST_LANES void load_64(const uint16_t* logits, __m512 (&x)[4]) {
  for (int j = 0; j < 2; ++j) {
    const __m512i pairs = _mm512_loadu_si512(logits + 32 * j);
    x[2 * j] = avx512::even_bf16(pairs);
    x[2 * j + 1] = avx512::odd_bf16(pairs);
  }
}
template <typename T>
PERMAFROST_LANES void fetch_64(const T* values) {
  for (size_t line = 0; line < sizeof(T); ++line)
    _mm_prefetch(reinterpret_cast<const char*>(values) + 64 * line, _MM_HINT_T1);
}
template <typename Lanes>
PERMAFROST_LANES __m512 exp_of(__m512 x) {
  return sizeof(typename Lanes::Stored) == 2 ? avx512::exp_of_bf16(x) : avx512::exp_not_positive(x);
}

/// The sums run in four vectors and chunks of 4096 elements, so that rounding errors of a long row stay small; the
/// order depends on n alone.
template <typename Lanes, bool kCentered>
RowStatistics statistics_run(const typename Lanes::Stored* logits, int64_t n) {
  const int64_t whole = n / 64 * 64;
  __m512 largest[4];
  for (__m512& lane : largest) lane = _mm512_set1_ps(kLowest);
  // The processor's max gives its second argument when one is NaN: the maximum leaves NaN out, the sums do not.
  __m512 x[4];
  for (int64_t i = 0; i < whole; i += 64) {
    load_64(logits + i, x);
    for (int j = 0; j < 4; ++j) largest[j] = _mm512_max_ps(x[j], largest[j]);
  }
  for (int64_t i = whole; i < n; i += 16) {
    const __mmask16 tail = avx512::first_lanes(n - i);
    largest[0] = _mm512_mask_max_ps(largest[0], tail, Lanes::load(logits + i, tail), largest[0]);
  }
  const float max =
      _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3])));

  const __m512 shift = _mm512_set1_ps(max);
  __m512 exp_total = _mm512_setzero_ps(), centered_total = _mm512_setzero_ps();
  for (int64_t chunk = 0; chunk < whole; chunk += 4096) {
    const int64_t end = chunk + 4096 < whole ? chunk + 4096 : whole;
    __m512 exp_sum[4] = {}, centered_sum[4] = {};
    for (int64_t i = chunk; i < end; i += 64) {
      // This pass reads what the first left in the cache; meanwhile the next row, which lies behind, comes from memory.
      fetch_64(logits + n + i);
      load_64(logits + i, x);
      for (int j = 0; j < 4; ++j) {
        const __m512 centered = _mm512_sub_ps(x[j], shift);
        exp_sum[j] = _mm512_add_ps(exp_sum[j], exp_of<Lanes>(centered));
        if constexpr (kCentered) centered_sum[j] = _mm512_add_ps(centered_sum[j], centered);
      }
    }
    const auto fold = [](const __m512(&sum)[4]) {
      return _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
    };
    exp_total = _mm512_add_ps(exp_total, fold(exp_sum));
    centered_total = _mm512_add_ps(centered_total, fold(centered_sum));
  }
  for (int64_t i = whole; i < n; i += 16) {
    const __mmask16 tail = avx512::first_lanes(n - i);
    const __m512 centered = _mm512_maskz_sub_ps(tail, Lanes::load(logits + i, tail), shift);
    exp_total = _mm512_mask_add_ps(exp_total, tail, exp_total, exp_of<Lanes>(centered));
    if constexpr (kCentered) centered_total = _mm512_add_ps(centered_total, centered);
  }
  return {max, _mm512_reduce_add_ps(exp_total), _mm512_reduce_add_ps(centered_total)};
}

template <bool kCentered>
RowStatistics statistics_any(DType dtype, const void* logits, int64_t n) {
  return dtype == DType::kF32 ? statistics_run<F32Lanes, kCentered>(static_cast<const float*>(logits), n)
                              : statistics_run<Bf16Lanes, kCentered>(static_cast<const uint16_t*>(logits), n);
}

RowStatistics statistics(DType dtype, const void* logits, int64_t n, bool with_centered_sum) {
  return with_centered_sum ? statistics_any<true>(dtype, logits, n) : statistics_any<false>(dtype, logits, n);
}

template <typename From, typename To>
void gradient_run(const void* logits, float lse, float weight, float target, void* dlogits, int64_t n) {
  const auto* from = static_cast<const typename From::Stored*>(logits);
  auto* to = static_cast<typename To::Stored*>(dlogits);
  const __m512 shift = _mm512_set1_ps(lse), scale = _mm512_set1_ps(weight), offset = _mm512_set1_ps(target);
  const auto gradient = [&](__m512 x) {
    // x exceeds the log of the sum by its rounding at most.
    return _mm512_mul_ps(scale, _mm512_sub_ps(exp_of<To>(_mm512_sub_ps(x, shift)), offset));
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    _mm_prefetch(reinterpret_cast<const char*>(from + i) + 1024, _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(to + i) + 1024, _MM_HINT_T0);
    To::store(to + i, gradient(From::load(from + i)));
  }
  if (i < n) {
    const __mmask16 tail = avx512::first_lanes(n - i);
    To::store(to + i, gradient(From::load(from + i, tail)), tail);
  }
}

void gradient_any(DType dtype, const void* logits, float lse, float weight, float target, DType out_dtype,
                  void* dlogits, int64_t n) {
  const bool from_f32 = dtype == DType::kF32, to_f32 = out_dtype == DType::kF32;
  const auto run = from_f32 ? (to_f32 ? gradient_run<F32Lanes, F32Lanes> : gradient_run<F32Lanes, Bf16Lanes>)
                            : (to_f32 ? gradient_run<Bf16Lanes, F32Lanes> : gradient_run<Bf16Lanes, Bf16Lanes>);
  run(logits, lse, weight, target, dlogits, n);
}

}  // namespace

const CrossEntropyLoops kCrossEntropyLoopsAvx512{statistics, gradient_any};

}  // namespace permafrost::cpu
