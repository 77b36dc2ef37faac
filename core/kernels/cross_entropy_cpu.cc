#include "core/kernels/cross_entropy_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/device/cpu_features.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/float_bits.h"

namespace permafrost::cpu {

namespace {

template <typename T>
RowStatistics statistics_run(const T* logits, int64_t n) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) largest = load(logits + i) > largest ? load(logits + i) : largest;
  double exp_sum = 0, centered_sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float centered = load(logits + i) - largest;
    exp_sum += static_cast<double>(std::exp(centered));
    centered_sum += static_cast<double>(centered);
  }
  return {largest, static_cast<float>(exp_sum), static_cast<float>(centered_sum)};
}

RowStatistics statistics_any(DType dtype, const void* logits, int64_t n, bool) {
  return dtype == DType::kF32 ? statistics_run(static_cast<const float*>(logits), n)
                              : statistics_run(static_cast<const bfloat16*>(logits), n);
}

template <typename From, typename To>
void gradient_run(const From* logits, float lse, float weight, float target, To* dlogits, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(weight * (std::exp(load(logits + i) - lse) - target), dlogits + i);
}

void gradient_any(DType dtype, const void* logits, float lse, float weight, float target, DType out_dtype,
                  void* dlogits, int64_t n) {
  const auto to = [&](auto* from) {
    if (out_dtype == DType::kF32)
      gradient_run(from, lse, weight, target, static_cast<float*>(dlogits), n);
    else
      gradient_run(from, lse, weight, target, static_cast<bfloat16*>(dlogits), n);
  };
  if (dtype == DType::kF32)
    to(static_cast<const float*>(logits));
  else
    to(static_cast<const bfloat16*>(logits));
}

const CrossEntropyLoops& loops() {
  return cpu_features().avx512 ? kCrossEntropyLoopsAvx512 : kCrossEntropyLoopsBaseline;
}

void check_labels(const Tensor& labels, int64_t vocabulary) {
  const int32_t* label = labels.data<int32_t>();
  for (int64_t row = 0; row < labels.elements(); ++row)
    if (label[row] != kIgnoredLabel && (label[row] < 0 || label[row] >= vocabulary))
      fail(ErrorKind::kInvalidArgument, "cross_entropy: labels must lie in 0..", vocabulary - 1, " (V=", vocabulary,
           ") or be -100; got ", label[row], " at row ", row);
}

int64_t rows_per_block(int64_t vocabulary) {
  return std::max<int64_t>(1, kElementBlock / std::max<int64_t>(1, vocabulary));
}

}  // namespace

const CrossEntropyLoops kCrossEntropyLoopsBaseline{statistics_any, gradient_any};

void cross_entropy_forward(const Context& context, Tensor logits, Tensor labels, float smoothing, Tensor row_loss,
                           Tensor lse) {
  const int64_t vocabulary = logits.dim(1);
  check_labels(labels, vocabulary);
  const int32_t* label = labels.data<int32_t>();
  float* loss_of = row_loss.data<float>();
  float* lse_of = lse ? lse.data<float>() : nullptr;
  for_ranges(context, labels.elements(), rows_per_block(vocabulary), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float loss = 0, log_sum_exp = 0;
      if (label[row] != kIgnoredLabel) {
        const RowStatistics s =
            loops().statistics(logits.dtype(), at(logits, row * vocabulary), vocabulary, smoothing > 0);
        const std::byte* chosen = at(logits, row * vocabulary + label[row]);
        const float x = logits.dtype() == DType::kF32 ? load(reinterpret_cast<const float*>(chosen))
                                                      : load(reinterpret_cast<const bfloat16*>(chosen));
        // Everything relative to the maximum: lse and x themselves may be large and nearly equal.
        const float log_sum = std::log(s.exp_sum);
        loss = log_sum - (1.0f - smoothing) * (x - s.max);
        if (smoothing > 0) loss -= smoothing * (s.centered_sum / static_cast<float>(vocabulary));
        log_sum_exp = s.max + log_sum;
      }
      loss_of[row] = loss;
      if (lse_of) lse_of[row] = log_sum_exp;
    }
  });
}

void cross_entropy_backward(const Context& context, Tensor logits, Tensor labels, Tensor lse, Tensor row_weight,
                            float smoothing, Tensor dlogits) {
  const int64_t vocabulary = logits.dim(1), size = size_of(logits.dtype());
  check_labels(labels, vocabulary);
  const int32_t* label = labels.data<int32_t>();
  const float* lse_of = lse.data<float>();
  const float* weight_of = row_weight.data<float>();
  const float uniform = vocabulary > 0 ? smoothing / static_cast<float>(vocabulary) : 0.0f;
  for_ranges(context, labels.elements(), rows_per_block(vocabulary), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = row * vocabulary;
      if (label[row] == kIgnoredLabel) {
        std::memset(at(dlogits, first), 0, static_cast<size_t>(vocabulary * size_of(dlogits.dtype())));
        continue;
      }
      float chosen = 0;  // the label's logit, before an in-place gradient covers it
      std::memcpy(&chosen, at(logits, first + label[row]), static_cast<size_t>(size));
      const auto gradient = loops().gradient;
      gradient(logits.dtype(), at(logits, first), lse_of[row], weight_of[row], uniform, dlogits.dtype(),
               at(dlogits, first), vocabulary);
      gradient(logits.dtype(), &chosen, lse_of[row], weight_of[row], uniform + (1.0f - smoothing), dlogits.dtype(),
               at(dlogits, first + label[row]), 1);
    }
  });
}

void weighted_sum(const Context&, Tensor row_loss, Tensor row_weight, Tensor loss) {
  const float* loss_of = row_loss.data<float>();
  const float* weight_of = row_weight.data<float>();
  double sum = 0;
  for (int64_t row = 0; row < row_loss.elements(); ++row)
    sum += static_cast<double>(weight_of[row]) * static_cast<double>(loss_of[row]);
  *loss.data<double>() = sum;
}

}  // namespace permafrost::cpu
