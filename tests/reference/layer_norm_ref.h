#pragma once
#include <cmath>
#include <cstddef>
#include <vector>

namespace permafrost::reference {

template <typename S>
struct LayerNorm {
  std::vector<S> y, mean, rstd;
};

/// Rows of gain.size() elements; y = (x - mean) rstd gain + bias.
template <typename S>
LayerNorm<S> layer_norm(const std::vector<S>& x, const std::vector<S>& gain, const std::vector<S>& bias, double eps) {
  using std::sqrt;
  const size_t width = gain.size(), rows = width ? x.size() / width : 0;
  LayerNorm<S> out;
  for (size_t r = 0; r < rows; ++r) {
    S sum = 0.0, squares = 0.0;
    for (size_t c = 0; c < width; ++c) sum += x[r * width + c];
    const S mean = sum / static_cast<double>(width);
    for (size_t c = 0; c < width; ++c) squares += (x[r * width + c] - mean) * (x[r * width + c] - mean);
    const S rstd = 1.0 / sqrt(squares / static_cast<double>(width) + eps);
    for (size_t c = 0; c < width; ++c) out.y.push_back((x[r * width + c] - mean) * rstd * gain[c] + bias[c]);
    out.mean.push_back(mean);
    out.rstd.push_back(rstd);
  }
  return out;
}

struct LayerNormGradients {
  std::vector<double> dx, dgain, dbias;
};

/// The backward formula, from what forward kept.
inline LayerNormGradients layer_norm_gradients(const std::vector<double>& dy, const std::vector<double>& x,
                                               const std::vector<double>& gain, const std::vector<double>& mean,
                                               const std::vector<double>& rstd) {
  const size_t width = gain.size(), rows = mean.size();
  LayerNormGradients out{std::vector<double>(x.size()), std::vector<double>(width), std::vector<double>(width)};
  for (size_t r = 0; r < rows; ++r) {
    double sum = 0, times_normal = 0;
    for (size_t c = 0; c < width; ++c) {
      const size_t i = r * width + c;
      const double normal = (x[i] - mean[r]) * rstd[r];
      out.dgain[c] += dy[i] * normal;
      out.dbias[c] += dy[i];
      sum += dy[i] * gain[c];
      times_normal += dy[i] * gain[c] * normal;
    }
    for (size_t c = 0; c < width; ++c) {
      const size_t i = r * width + c;
      const double normal = (x[i] - mean[r]) * rstd[r], n = static_cast<double>(width);
      out.dx[i] = rstd[r] * (dy[i] * gain[c] - sum / n - normal * times_normal / n);
    }
  }
  return out;
}

}  // namespace permafrost::reference
