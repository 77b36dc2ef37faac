#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

namespace permafrost::testing {

/// Dual number value + slope * e with e^2 = 0: run a function with slope 1 in one input and the slope of its output is
/// the exact derivative (to rounding in double). It is complex-step differentiation in the limit of a vanishing step,
/// without its traps: functions that are not analytic (max, abs, comparisons) branch on `value`, and erf needs no
/// complex continuation. References are templates on their scalar, so the same text runs on double and on Dual.
struct Dual {
  double value = 0, slope = 0;
  Dual() = default;
  Dual(double v, double s = 0) : value(v), slope(s) {}  // NOLINT: constants mix freely with duals

  Dual& operator+=(const Dual& b) {
    value += b.value;
    slope += b.slope;
    return *this;
  }
  Dual& operator-=(const Dual& b) {
    value -= b.value;
    slope -= b.slope;
    return *this;
  }
  Dual& operator*=(const Dual& b) {
    slope = slope * b.value + value * b.slope;
    value *= b.value;
    return *this;
  }
  Dual& operator/=(const Dual& b) {
    slope = (slope * b.value - value * b.slope) / (b.value * b.value);
    value /= b.value;
    return *this;
  }
  friend Dual operator+(Dual a, const Dual& b) { return a += b; }
  friend Dual operator-(Dual a, const Dual& b) { return a -= b; }
  friend Dual operator*(Dual a, const Dual& b) { return a *= b; }
  friend Dual operator/(Dual a, const Dual& b) { return a /= b; }
  friend Dual operator-(const Dual& a) { return {-a.value, -a.slope}; }
  friend bool operator<(const Dual& a, const Dual& b) { return a.value < b.value; }
  friend bool operator>(const Dual& a, const Dual& b) { return a.value > b.value; }
  friend bool operator<=(const Dual& a, const Dual& b) { return a.value <= b.value; }
  friend bool operator>=(const Dual& a, const Dual& b) { return a.value >= b.value; }
  friend bool operator==(const Dual& a, const Dual& b) { return a.value == b.value; }
};

inline Dual exp(const Dual& x) { return {std::exp(x.value), x.slope * std::exp(x.value)}; }
inline Dual log(const Dual& x) { return {std::log(x.value), x.slope / x.value}; }
inline Dual sqrt(const Dual& x) { return {std::sqrt(x.value), x.slope / (2.0 * std::sqrt(x.value))}; }
inline Dual abs(const Dual& x) { return x.value < 0 ? -x : x; }
inline Dual tanh(const Dual& x) {
  const double t = std::tanh(x.value);
  return {t, x.slope * (1.0 - t * t)};
}
inline Dual erf(const Dual& x) {
  return {std::erf(x.value), x.slope * 2.0 * std::numbers::inv_sqrtpi * std::exp(-x.value * x.value)};
}
/// The first of two equal values wins, as with std::max.
inline Dual max(const Dual& a, const Dual& b) { return a.value < b.value ? b : a; }
inline Dual min(const Dual& a, const Dual& b) { return b.value < a.value ? b : a; }

/// The plain number behind a reference's scalar, for branches.
inline double value_of(double x) { return x; }
inline double value_of(const Dual& x) { return x.value; }

/// d(sum_i cotangent[i] f(x)[i]) / dx, one run of f per element of x: for small sizes.
/// f: const std::vector<Dual>& -> std::vector<Dual>, usually a generic lambda around a reference.
template <typename Function>
std::vector<double> gradient_by_duals(Function&& f, const std::vector<double>& x,
                                      const std::vector<double>& cotangent) {
  std::vector<Dual> input(x.begin(), x.end());
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    input[i].slope = 1.0;
    const std::vector<Dual> output = f(static_cast<const std::vector<Dual>&>(input));
    input[i].slope = 0.0;
    EXPECT_EQ(output.size(), cotangent.size());
    for (size_t j = 0; j < output.size(); ++j) gradient[i] += cotangent[j] * output[j].slope;
  }
  return gradient;
}

/// `gradient` (as some backward formula has it, in double) against the dual numbers' one:
/// |difference| <= tolerance * (1 + |want|) everywhere; NaN never passes.
template <typename Function>
::testing::AssertionResult gradient_agrees(const std::vector<double>& gradient, Function&& f,
                                           const std::vector<double>& x, const std::vector<double>& cotangent,
                                           double tolerance = 1e-11) {
  const std::vector<double> want = gradient_by_duals(f, x, cotangent);
  if (gradient.size() != want.size())
    return ::testing::AssertionFailure() << "expected " << want.size() << " values; got " << gradient.size();
  for (size_t i = 0; i < want.size(); ++i)
    if (!(std::abs(gradient[i] - want[i]) <= tolerance * (1.0 + std::abs(want[i]))))
      return ::testing::AssertionFailure() << "at flat index " << i << ": got " << gradient[i] << ", dual numbers give "
                                           << want[i] << ", relative tolerance " << tolerance;
  return ::testing::AssertionSuccess();
}

}  // namespace permafrost::testing
