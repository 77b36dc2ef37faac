#include "core/kernels/layer_norm_cpu.h"

#include <algorithm>
#include <cmath>

#include "core/tensor/dtype.h"

namespace permafrost {

namespace {
// Sums run in eight lanes, so that the compiler may use vectors without changing the order.
constexpr int64_t kLanes = 8;

template <typename Term>
float sum(int64_t n, Term term) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  for (int64_t lane = 0; i < n; ++i, ++lane) lanes[lane] += term(i);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

template <typename T>
void forward(const LayerNormForwardRows& a) {
  const float count = static_cast<float>(a.width);
  for (int64_t row = 0; row < a.rows; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * a.width;
    T* y = static_cast<T*>(a.y) + row * a.width;
    const float mean = sum(a.width, [&](int64_t i) { return static_cast<float>(x[i]); }) / count;
    const float squares = sum(a.width, [&](int64_t i) {
      const float d = static_cast<float>(x[i]) - mean;
      return d * d;
    });
    const float rstd = 1.0f / std::sqrt(squares / count + a.eps);
    for (int64_t i = 0; i < a.width; ++i) y[i] = T((static_cast<float>(x[i]) - mean) * rstd * a.gain[i] + a.bias[i]);
    if (a.mean) a.mean[row] = mean;
    if (a.rstd) a.rstd[row] = rstd;
  }
}

template <typename T>
void backward(const LayerNormBackwardRows& a) {
  const float count = static_cast<float>(a.width);
  if (a.dgain) std::fill_n(a.dgain, a.width, 0.0f);
  if (a.dbias) std::fill_n(a.dbias, a.width, 0.0f);
  for (int64_t row = 0; row < a.rows; ++row) {
    const T* dy = static_cast<const T*>(a.dy) + row * a.width;
    const T* x = static_cast<const T*>(a.x) + row * a.width;
    const float mean = a.mean[row], rstd = a.rstd[row];
    const auto normal = [&](int64_t i) { return (static_cast<float>(x[i]) - mean) * rstd; };
    if (a.dgain)
      for (int64_t i = 0; i < a.width; ++i) a.dgain[i] += static_cast<float>(dy[i]) * normal(i);
    if (a.dbias)
      for (int64_t i = 0; i < a.width; ++i) a.dbias[i] += static_cast<float>(dy[i]);
    if (!a.dx) continue;
    T* dx = static_cast<T*>(a.dx) + row * a.width;
    const auto scaled = [&](int64_t i) { return static_cast<float>(dy[i]) * a.gain[i]; };
    const float mean_1 = sum(a.width, scaled) / count;
    const float mean_x = sum(a.width, [&](int64_t i) { return scaled(i) * normal(i); }) / count;
    for (int64_t i = 0; i < a.width; ++i) {
      const float gradient = (scaled(i) - mean_1 - normal(i) * mean_x) * rstd;
      dx[i] = T(a.add_dx ? static_cast<float>(dx[i]) + gradient : gradient);
    }
  }
}
}  // namespace

void layer_norm_forward_portable(const LayerNormForwardRows& args) {
  args.bf16 ? forward<bfloat16>(args) : forward<float>(args);
}

void layer_norm_backward_portable(const LayerNormBackwardRows& args) {
  args.bf16 ? backward<bfloat16>(args) : backward<float>(args);
}

}  // namespace permafrost
