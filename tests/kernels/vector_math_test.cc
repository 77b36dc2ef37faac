#include "core/kernels/vector_math.h"

#include <bit>
#include <cmath>
#include <limits>

#include "tests/support/compare.h"

namespace permafrost {
namespace {

using Function = void (*)(const float*, float*, int64_t, SimdLevel);

/// Distance in units of the last place of the wanted value (of the smallest normal number below it).
double units_off(float got, double want) {
  const double magnitude = std::max(std::abs(want), double{std::numeric_limits<float>::min()});
  return std::abs(double{got} - want) / std::ldexp(1.0, std::ilogb(magnitude) - 23);
}

/// The largest error over every `step`th float of [low, high], both signs when low < 0.
double largest_error(Function function, double (*exact)(double), float low, float high, uint32_t step,
                     SimdLevel level) {
  std::vector<float> x;
  for (uint32_t bits = 0; std::bit_cast<float>(bits) <= high; bits += step) x.push_back(std::bit_cast<float>(bits));
  for (uint32_t bits = 0; std::bit_cast<float>(bits) <= -low; bits += step) x.push_back(-std::bit_cast<float>(bits));
  std::vector<float> y(x.size());
  function(x.data(), y.data(), static_cast<int64_t>(x.size()), level);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = units_off(y[i], exact(double{x[i]}));
    EXPECT_FALSE(std::isnan(error)) << x[i];
    worst = std::max(worst, error);
  }
  return worst;
}

class VectorMath : public ::testing::TestWithParam<SimdLevel> {
 protected:
  void SetUp() override {
    if (GetParam() > simd_level()) GTEST_SKIP() << "this processor lacks " << to_string(GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Levels, VectorMath, ::testing::Values(SimdLevel::kPortable, SimdLevel::kAvx512),
                         [](const auto& info) { return std::string(to_string(info.param)); });

TEST_P(VectorMath, ExpIsAccurate) {
  EXPECT_LE(largest_error(
                vector_exp, [](double x) { return std::exp(x); }, -110.0f, 88.72f, 4099, GetParam()),
            2.0);
}

TEST_P(VectorMath, ErfIsAccurate) {
  EXPECT_LE(largest_error(
                vector_erf, [](double x) { return std::erf(x); }, -20.0f, 20.0f, 4099, GetParam()),
            4.0);
}

TEST_P(VectorMath, TanhIsAccurate) {
  EXPECT_LE(largest_error(
                vector_tanh, [](double x) { return std::tanh(x); }, -60.0f, 60.0f, 4099, GetParam()),
            4.0);
}

TEST_P(VectorMath, SpecialValues) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  const float x[] = {0.0f, -0.0f, kInf, -kInf, kNan, 1e30f, -1e30f, 89.0f};
  float e[8], f[8], t[8];
  vector_exp(x, e, 8, GetParam());
  vector_erf(x, f, 8, GetParam());
  vector_tanh(x, t, 8, GetParam());
  const float want_exp[] = {1.0f, 1.0f, kInf, 0.0f, kNan, kInf, 0.0f, kInf};
  const float want_odd[] = {0.0f, -0.0f, 1.0f, -1.0f, kNan, 1.0f, -1.0f, 1.0f};
  for (int i = 0; i < 8; ++i) {
    if (i == 4) {
      EXPECT_TRUE(std::isnan(e[i]) && std::isnan(f[i]) && std::isnan(t[i]));
      continue;
    }
    EXPECT_EQ(e[i], want_exp[i]) << x[i];
    EXPECT_EQ(std::bit_cast<uint32_t>(f[i]), std::bit_cast<uint32_t>(want_odd[i])) << x[i];
    EXPECT_EQ(std::bit_cast<uint32_t>(t[i]), std::bit_cast<uint32_t>(want_odd[i])) << x[i];
  }
}

TEST_P(VectorMath, AResultDoesNotDependOnItsPlaceAndNothingElseIsWritten) {
  std::vector<float> x(41), whole(41);
  for (size_t i = 0; i < x.size(); ++i) x[i] = -4.0f + 0.2f * static_cast<float>(i);
  for (Function function : {vector_exp, vector_erf, vector_tanh}) {
    function(x.data(), whole.data(), 41, GetParam());
    for (int64_t n : {0, 1, 15, 16, 17, 33})
      for (size_t offset : {size_t{0}, size_t{3}, size_t{8}}) {
        std::vector<float> part(x.begin() + static_cast<std::ptrdiff_t>(offset), x.end());
        part.push_back(7.0f);
        const size_t untouched = static_cast<size_t>(n);
        const float before = part[untouched];
        function(part.data(), part.data(), n, GetParam());  // in place
        for (size_t i = 0; i < untouched; ++i) EXPECT_EQ(part[i], whole[offset + i]);
        EXPECT_EQ(part[untouched], before);
      }
  }
}

TEST(SimdLevelNames, AreDistinct) {
  EXPECT_EQ(to_string(SimdLevel::kPortable), "portable");
  EXPECT_EQ(to_string(SimdLevel::kAvx512), "avx512");
  EXPECT_EQ(to_string(SimdLevel::kAmx), "amx");
}

}  // namespace
}  // namespace permafrost
