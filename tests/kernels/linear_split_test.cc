#include <cmath>
#include <limits>

#include "core/kernels/linear.h"
#include "core/kernels/linear_cpu.h"
#include "tests/kernels/dtypes.h"
#include "tests/support/compare.h"

// f32 products as sums of bf16 tile products (AMX), against exact sums and against the chain of FMA that AVX-512
// computes.
namespace permafrost {
namespace {

using namespace permafrost::testing;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class LinearSplit : public ::testing::Test {
 protected:
  void SetUp() override {
    if (simd_level() < SimdLevel::kAmx) GTEST_SKIP() << "this processor has no AMX";
  }
};

/// The factors of an (m, n) product of k terms.
struct Factors {
  int64_t m, n, k;
  std::vector<double> x, weight;
};

std::vector<double> forward(const Factors& f, SimdLevel level) {
  const auto x = make_tensor(kF32, {f.m, f.k}, f.x), weight = make_tensor(kF32, {f.n, f.k}, f.weight);
  OwnedTensor y(kF32, {f.m, f.n}),
      workspace(kU8, {linear_workspace_bytes(LinearPass::kForward, f.m, f.n, f.k, kF32, kF32, 2)});
  linear_forward_cpu(cpu_context(2), {x, weight, {}, y, {}}, workspace, level);
  return values_of(y);
}

/// |y - exact| / sum of |x| |w|.
struct Errors {
  double most = 0, rms = 0;
};
Errors errors_of(const Factors& f, SimdLevel level) {
  const std::vector<double> y = forward(f, level);
  Errors e;
  for (int64_t i = 0; i < f.m; ++i)
    for (int64_t j = 0; j < f.n; ++j) {
      const double *x = f.x.data() + i * f.k, *w = f.weight.data() + j * f.k;
      double sum = 0, magnitude = 0;
      for (int64_t r = 0; r < f.k; ++r) sum += x[r] * w[r], magnitude += std::abs(x[r] * w[r]);
      const double error = magnitude == 0 ? 0 : std::abs(y[static_cast<size_t>(i * f.n + j)] - sum) / magnitude;
      e.most = std::max(e.most, error);
      e.rms += error * error / static_cast<double>(f.m * f.n);
    }
  e.rms = std::sqrt(e.rms);
  return e;
}

using Values = std::vector<double> (*)(int64_t rows, int64_t k, uint64_t seed);

std::vector<double> normal(int64_t rows, int64_t k, uint64_t seed) {
  return values_of(random_tensor(kF32, {rows, k}, seed));
}

/// Signs and magnitudes from 2^-40 to 2^40, evenly in the exponent.
std::vector<double> wide_range(int64_t rows, int64_t k, uint64_t seed) {
  std::vector<double> values = normal(rows, k, seed);
  for (double& v : values) v = std::copysign(std::exp2(40 * std::erf(v / std::sqrt(2.0))), v);
  return values_of(make_tensor(kF32, {rows, k}, values));
}

std::vector<double> one_sign(int64_t rows, int64_t k, uint64_t seed) {
  std::vector<double> values = normal(rows, k, seed);
  for (double& v : values) v = std::max(v, 0.0);
  return values;
}

std::vector<double> all_equal(int64_t rows, int64_t k, uint64_t seed) {
  return std::vector<double>(static_cast<size_t>(rows * k), static_cast<float>(0.1 * static_cast<double>(seed)));
}

/// Every term of the first half comes back in the second, negative in x but for its last bits.
Factors cancelling(int64_t m, int64_t n, int64_t k) {
  Factors f{m, n, k, normal(m, k, 1), normal(n, k, 2)};
  const int64_t half = k / 2;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t r = 0; r < half; ++r)
      f.x[static_cast<size_t>(i * k + half + r)] =
          static_cast<float>(-f.x[static_cast<size_t>(i * k + r)] * (1 + 0x1p-20 * static_cast<double>(r % 5)));
  for (int64_t j = 0; j < n; ++j)
    for (int64_t r = 0; r < half; ++r)
      f.weight[static_cast<size_t>(j * k + half + r)] = f.weight[static_cast<size_t>(j * k + r)];
  return f;
}

void expect_as_exact(const Factors& f, const char* what) {
  const Errors split = errors_of(f, SimdLevel::kAmx), chain = errors_of(f, SimdLevel::kAvx512);
  const std::string text = concat(what, " k=", f.k, ": largest ", split.most, " against ", chain.most, ", RMS ",
                                  split.rms, " against ", chain.rms);
  EXPECT_LE(split.most, chain.most) << text;
  EXPECT_LE(split.rms, chain.rms) << text;
  ::testing::Test::RecordProperty(concat(what, f.k), text);
  if (std::getenv("PERMAFROST_PRINT_ERRORS")) std::printf("%s\n", text.c_str());
}

TEST_F(LinearSplit, NoWorseThanAChainOfFma) {
  for (const int64_t k : {1, 2, 3, 4, 8, 16, 32, 48, 64, 128, 768, 3072}) {
    expect_as_exact({64, 48, k, normal(64, k, 1), normal(48, k, 2)}, "normal");
    expect_as_exact({64, 48, k, wide_range(64, k, 1), wide_range(48, k, 2)}, "wide range");
    expect_as_exact({64, 48, k, one_sign(64, k, 1), one_sign(48, k, 2)}, "one sign");
    expect_as_exact({64, 48, k, all_equal(64, k, 1), all_equal(48, k, 3)}, "all equal");
    if (k % 2 == 0) expect_as_exact(cancelling(64, 48, k), "cancelling");
  }
  const int64_t k = 50272;
  expect_as_exact({8, 32, k, normal(8, k, 1), normal(32, k, 2)}, "normal");
  expect_as_exact({8, 32, k, one_sign(8, k, 1), one_sign(32, k, 2)}, "one sign");
  expect_as_exact({8, 32, k, all_equal(8, k, 1), all_equal(32, k, 3)}, "all equal");
  expect_as_exact(cancelling(8, 32, k), "cancelling");
}

}  // namespace
}  // namespace permafrost
