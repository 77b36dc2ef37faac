#pragma once
#include <cstddef>
#include <vector>

#include "tests/reference/activation_ref.h"

namespace permafrost::reference {

struct LinearSizes {
  size_t m, n, k;
};

template <typename S>
struct Linear {
  std::vector<S> pre, y;
};

/// pre = x W^T + bias, y = activation(pre); x (m, k), weight (n, k), bias (n) or empty.
template <typename S>
Linear<S> linear(const LinearSizes& size, const std::vector<S>& x, const std::vector<S>& weight,
                 const std::vector<S>& bias, Activation kind = Activation::kNone) {
  Linear<S> out;
  for (size_t i = 0; i < size.m; ++i)
    for (size_t j = 0; j < size.n; ++j) {
      S sum = 0.0;
      for (size_t r = 0; r < size.k; ++r) sum += x[i * size.k + r] * weight[j * size.k + r];
      if (!bias.empty()) sum += bias[j];
      out.pre.push_back(sum);
      out.y.push_back(activation(kind, sum));
    }
  return out;
}

/// dx = dpre W.
inline std::vector<double> linear_dx(const LinearSizes& size, const std::vector<double>& dpre,
                                     const std::vector<double>& weight) {
  std::vector<double> dx(size.m * size.k);
  for (size_t i = 0; i < size.m; ++i)
    for (size_t j = 0; j < size.n; ++j)
      for (size_t r = 0; r < size.k; ++r) dx[i * size.k + r] += dpre[i * size.n + j] * weight[j * size.k + r];
  return dx;
}

/// dweight = dpre^T x.
inline std::vector<double> linear_dweight(const LinearSizes& size, const std::vector<double>& dpre,
                                          const std::vector<double>& x) {
  std::vector<double> dweight(size.n * size.k);
  for (size_t i = 0; i < size.m; ++i)
    for (size_t j = 0; j < size.n; ++j)
      for (size_t r = 0; r < size.k; ++r) dweight[j * size.k + r] += dpre[i * size.n + j] * x[i * size.k + r];
  return dweight;
}

/// dbias = column sums of dpre.
inline std::vector<double> linear_dbias(const LinearSizes& size, const std::vector<double>& dpre) {
  std::vector<double> dbias(size.n);
  for (size_t i = 0; i < size.m; ++i)
    for (size_t j = 0; j < size.n; ++j) dbias[j] += dpre[i * size.n + j];
  return dbias;
}

}  // namespace permafrost::reference
