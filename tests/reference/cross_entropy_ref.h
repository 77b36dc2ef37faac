#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace permafrost::reference {

/// -log p[v] for every class of one row.
template <typename S>
std::vector<S> negative_log_probabilities(const std::vector<S>& logits, size_t first, size_t classes) {
  using std::exp;
  using std::log;
  S largest = logits[first];
  for (size_t v = 1; v < classes; ++v)
    if (logits[first + v] > largest) largest = logits[first + v];
  S sum{};
  for (size_t v = 0; v < classes; ++v) sum += exp(logits[first + v] - largest);
  std::vector<S> negative(classes);
  for (size_t v = 0; v < classes; ++v) negative[v] = log(sum) - (logits[first + v] - largest);
  return negative;
}

/// (1 - s) nll + s mean_v(-log p[v]) per row; 0 where the label is -100.
template <typename S>
std::vector<S> cross_entropy(const std::vector<S>& logits, const std::vector<int32_t>& labels, size_t classes,
                             double smoothing) {
  std::vector<S> loss(labels.size());
  for (size_t r = 0; r < labels.size(); ++r) {
    if (labels[r] == -100) continue;
    const std::vector<S> negative = negative_log_probabilities(logits, r * classes, classes);
    S mean{};
    for (const S& value : negative) mean += value;
    mean /= S(static_cast<double>(classes));
    loss[r] = S(1.0 - smoothing) * negative[static_cast<size_t>(labels[r])] + S(smoothing) * mean;
  }
  return loss;
}

/// weight_r * (softmax - (1 - s) onehot - s / V).
inline std::vector<double> cross_entropy_gradient(const std::vector<double>& logits, const std::vector<int32_t>& labels,
                                                  size_t classes, double smoothing, const std::vector<double>& weight) {
  std::vector<double> gradient(logits.size());
  for (size_t r = 0; r < labels.size(); ++r) {
    if (labels[r] == -100) continue;
    const auto negative = negative_log_probabilities(logits, r * classes, classes);
    for (size_t v = 0; v < classes; ++v) {
      const double target =
          smoothing / static_cast<double>(classes) + (v == static_cast<size_t>(labels[r]) ? 1.0 - smoothing : 0.0);
      gradient[r * classes + v] = weight[r] * (std::exp(-negative[v]) - target);
    }
  }
  return gradient;
}

}  // namespace permafrost::reference
