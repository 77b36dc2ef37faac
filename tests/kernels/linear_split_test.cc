#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

#include "core/kernels/linear.h"
#include "core/kernels/linear_cpu.h"
#include "tests/kernels/dtypes.h"
#include "tests/reference/linear_ref.h"
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

/// `allowed`: times the chain's largest error.
void expect_as_exact(const Factors& f, const char* what, double allowed = 1.0) {
  const Errors split = errors_of(f, SimdLevel::kAmx), chain = errors_of(f, SimdLevel::kAvx512);
  const std::string text = concat(what, " k=", f.k, ": largest ", split.most, " against ", chain.most, ", RMS ",
                                  split.rms, " against ", chain.rms);
  EXPECT_LE(split.most, allowed * chain.most) << text;
  EXPECT_LE(split.rms, chain.rms) << text;
  ::testing::Test::RecordProperty(concat(what, " ", f.k), text);
}

/// Fewer terms than 384 are left to the chain of FMA itself. Of a wide range a few terms make the sum, and it is six
/// roundings beside them for 32 terms against 32, but three for each of them against one: the RMS is no larger, the
/// largest of some thousand errors may be.
TEST_F(LinearSplit, NoWorseThanAChainOfFma) {
  for (const int64_t k : {384, 512, 768, 3072}) {
    expect_as_exact({64, 48, k, normal(64, k, 1), normal(48, k, 2)}, "normal");
    expect_as_exact({64, 48, k, wide_range(64, k, 1), wide_range(48, k, 2)}, "wide range", 1.25);
    expect_as_exact({64, 48, k, one_sign(64, k, 1), one_sign(48, k, 2)}, "one sign");
    expect_as_exact({64, 48, k, all_equal(64, k, 1), all_equal(48, k, 3)}, "all equal");
    expect_as_exact(cancelling(64, 48, k), "cancelling");
  }
  const int64_t k = 50272;
  expect_as_exact({8, 32, k, normal(8, k, 1), normal(32, k, 2)}, "normal");
  expect_as_exact({8, 32, k, wide_range(8, k, 1), wide_range(32, k, 2)}, "wide range", 1.25);
  expect_as_exact({8, 32, k, one_sign(8, k, 1), one_sign(32, k, 2)}, "one sign");
  expect_as_exact({8, 32, k, all_equal(8, k, 1), all_equal(32, k, 3)}, "all equal");
  expect_as_exact(cancelling(8, 32, k), "cancelling");
}

/// The engine at sizes of its own: edges of tiles, panels, groups and parts, in every form.
class SplitProducts : public LinearSplit {
 protected:
  static OwnedTensor run(const Product& product, Tensor y, int threads) {
    OwnedTensor workspace = filled_tensor(kU8, {product_workspace_bytes(product, split_amx_engine(), threads)}, 0xff);
    const Context context = cpu_context(threads);
    run_product(*context.pool, product, split_amx_engine(), static_cast<std::byte*>(workspace.view().raw()));
    EXPECT_TRUE(workspace.canaries_intact());
    return make_tensor(kF32, y.shape(), values_of(y));
  }
};

TEST_F(SplitProducts, EveryFormMatchesReference) {
  using S = reference::LinearSizes;
  for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1},
                                {1, 17, 33},
                                {2, 100, 31},
                                {16, 16, 32},
                                {33, 31, 100},
                                {31, 530, 64},
                                {97, 90, 96},
                                {130, 49, 65},
                                {300, 20, 40},
                                {40, 300, 1500},
                                {1500, 33, 40},
                                {70, 1500, 47}}) {
    SCOPED_TRACE(concat("m=", m, " n=", n, " k=", k));
    const S s{static_cast<size_t>(m), static_cast<size_t>(n), static_cast<size_t>(k)};
    const auto x = random_tensor(kF32, {m, k}, 1), weight = random_tensor(kF32, {n, k}, 2),
               dy = random_tensor(kF32, {m, n}, 3);
    const auto bias = random_tensor(kF32, {n}, 4);
    OwnedTensor y(kF32, {m, n}), dx(kF32, {m, k}), dweight(kF32, {n, k});
    const auto tolerance = [](int64_t terms) {
      return tolerance_for(kF32, terms, 4.0 * std::sqrt(static_cast<double>(terms) + 1.0));
    };
    for (int threads : {1, 3}) {
      run(forward_product({x, weight, bias, y, {}}), y, threads);
      EXPECT_TRUE(all_close(y, reference::linear(s, values_of(x), values_of(weight), values_of(bias)).y, tolerance(k)));
      run(input_gradient_product({dy, weight, dx}), dx, threads);
      EXPECT_TRUE(all_close(dx, reference::linear_dx(s, values_of(dy), values_of(weight)), tolerance(n)));
      run(weight_gradient_product({x, dy, dweight, {}}), dweight, threads);
      EXPECT_TRUE(all_close(dweight, reference::linear_dweight(s, values_of(dy), values_of(x)), tolerance(m)));
      EXPECT_TRUE(y.canaries_intact() && dx.canaries_intact() && dweight.canaries_intact());
    }
  }
}

/// One chain per element: other rows, threads and which operand is A cannot show; nor can where A and B lie.
TEST_F(SplitProducts, BitsDependOnTheTermsAlone) {
  const int64_t all = 300;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{330, 96}, {47, 45}, {200, 1700}})
    for (int64_t rows : {1, 2, 17, 32, 33, 96, 97, 256}) {
      SCOPED_TRACE(concat("rows ", rows, " n ", n, " k ", k));
      const auto x = random_tensor(kF32, {all, k}, 1), weight = random_tensor(kF32, {n, k}, 2),
                 dy = random_tensor(kF32, {all, n}, 3);
      const auto bias = random_tensor(kF32, {n}, 4);
      OwnedTensor y(kF32, {all, n}), few_y(kF32, {rows, n}), dx(kF32, {all, k}), few_dx(kF32, {rows, k});
      run(forward_product({x, weight, bias, y, {}}), y, 2);
      run(forward_product({x.view().rows(7, 7 + rows), weight, bias, few_y, {}}), few_y, 3);
      EXPECT_TRUE(same_bits(y.view().rows(7, 7 + rows), few_y));
      run(input_gradient_product({dy, weight, dx}), dx, 2);
      run(input_gradient_product({dy.view().rows(7, 7 + rows), weight, few_dx}), few_dx, 1);
      EXPECT_TRUE(same_bits(dx.view().rows(7, 7 + rows), few_dx));
    }
}

TEST_F(SplitProducts, StoredWeightsAreConvertedExactly) {
  for (DType stored : {kBF16, kF16}) {
    SCOPED_TRACE(to_string(stored));
    const auto x = random_tensor(kF32, {70, 300}, 1), dy = random_tensor(kF32, {70, 130}, 2);
    const auto weight = random_tensor(stored, {130, 300}, 3), same = make_tensor(kF32, {130, 300}, values_of(weight));
    OwnedTensor y(kF32, {70, 130}), want_y(kF32, {70, 130}), dx(kF32, {70, 300}), want_dx(kF32, {70, 300});
    run(forward_product({x, weight, {}, y, {}}), y, 1);
    run(forward_product({x, same, {}, want_y, {}}), want_y, 1);
    EXPECT_TRUE(same_bits(y, want_y));
    run(input_gradient_product({dy, weight, dx}), dx, 1);
    run(input_gradient_product({dy, same, want_dx}), want_dx, 1);
    EXPECT_TRUE(same_bits(dx, want_dx));
  }
}

/// y of one term that is not zero among 384, of the values x and w.
double single_product(double x, double w) {
  Factors f{1, 1, 384, std::vector<double>(384), std::vector<double>(384, 1.0)};
  f.x[100] = x;
  f.weight[100] = w;
  return forward(f, SimdLevel::kAmx)[0];
}

TEST_F(LinearSplit, WhatIsNotFiniteStaysSo) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), largest = std::numeric_limits<float>::max();
  for (const double bad : {nan, kInfinity, -kInfinity}) {
    EXPECT_FALSE(std::isfinite(single_product(bad, 1.0))) << bad;
    EXPECT_FALSE(std::isfinite(single_product(1.0, bad))) << bad;
    EXPECT_FALSE(std::isfinite(single_product(bad, 0.0))) << bad;
    EXPECT_FALSE(std::isfinite(single_product(bad, bad))) << bad;
  }
  EXPECT_FALSE(std::isfinite(single_product(1e30, 1e30)));
  // A NaN of any payload: none may be rounded away.
  for (const uint32_t bits : {0x7fffffffu, 0xffffffffu, 0x7f800001u, 0xff800001u, 0x7fc00000u, 0x7f80ffffu}) {
    auto x = make_tensor(kF32, {1, 384}, std::vector<double>(384, 1.0));
    std::memcpy(static_cast<std::byte*>(x.view().raw()) + 4 * 100, &bits, 4);
    const auto weight = make_tensor(kF32, {1, 384}, std::vector<double>(384, 1.0));
    OwnedTensor y(kF32, {1, 1}),
        workspace(kU8, {linear_workspace_bytes(LinearPass::kForward, 1, 1, 384, kF32, kF32, 1)});
    linear_forward_cpu(cpu_context(), {x, weight, {}, y, {}}, workspace, SimdLevel::kAmx);
    EXPECT_TRUE(std::isnan(values_of(y)[0])) << std::hex << bits;
  }
  // From here up a value rounds to infinity as bf16, and counts as not finite.
  const double limit = std::ldexp(255.5, 120);
  EXPECT_DOUBLE_EQ(single_product(std::nextafter(static_cast<float>(limit), 0.0f), 0.5),
                   std::nextafter(static_cast<float>(limit), 0.0f) * 0.5);
  EXPECT_FALSE(std::isfinite(single_product(limit, 0.5)));
  EXPECT_FALSE(std::isfinite(single_product(largest, 0.5)));
}

TEST_F(LinearSplit, SmallNumbersLoseTheirLowBits) {
  const double third = static_cast<float>(1.0 / 3);
  // The third part of a number is 2^-17 of it, and the tiles take denormals as zero.
  EXPECT_EQ(single_product(std::ldexp(third, -100), 1.0), std::ldexp(third, -100));
  for (const int e : {-110, -115, -118}) {
    EXPECT_NEAR(single_product(std::ldexp(third, e), 1.0) / std::ldexp(third, e), 1.0, std::ldexp(1.0, -126 - e + 2))
        << e;
    EXPECT_NEAR(single_product(std::ldexp(third, e / 2), std::ldexp(third, e - e / 2)) / std::ldexp(third * third, e),
                1.0, std::ldexp(1.0, -126 - e + 5))
        << e;
  }
  EXPECT_EQ(single_product(std::ldexp(third, -130), 1.0), 0.0);
  EXPECT_EQ(single_product(std::ldexp(third, -70), std::ldexp(third, -70)), 0.0);
}

}  // namespace
}  // namespace permafrost
