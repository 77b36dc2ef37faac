#include <bit>
#include <cmath>
#include <limits>

#include "core/device/cpu_features.h"
#include "core/kernels/order_free.h"
#include "core/kernels/order_free_cpu.h"
#include "tests/reference/order_free_ref.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::cpu_context;
using testing::make_tensor;
using testing::OwnedTensor;
using testing::random_tensor;
using testing::same_bits;
using testing::throws_error;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Values of every size: normals over 80 binades, subnormals, zeros, ties of the rounding, the largest allowed.
std::vector<float> awkward(int64_t n, int32_t exponent, int shift, uint64_t seed) {
  Random random(seed, RandomPurpose::kSynthetic);
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) {
    const auto sign = random.next_u32() & 1u ? -1.0 : 1.0;
    const double fraction = 1.0 + random.next_double();
    switch (i % 6) {
      case 0:
        values.push_back(
            static_cast<float>(sign * std::ldexp(fraction, exponent - 1 - static_cast<int>(random.next_below(80)))));
        break;
      case 1:
        values.push_back(
            static_cast<float>(sign * std::ldexp(static_cast<double>(random.next_below(64)) + 0.5, -shift)));
        break;
      case 2:
        values.push_back(std::bit_cast<float>(random.next_u32() & 0x807fffffu));
        break;
      case 3:
        values.push_back(random.next_u32() & 1u ? 0.0f : -0.0f);
        break;
      case 4:
        values.push_back(static_cast<float>(sign) *
                         std::nextafter(static_cast<float>(std::ldexp(1.0, exponent)), 0.0f));
        break;
      default:
        values.push_back(static_cast<float>(sign * std::ldexp(fraction, exponent - 14)));
        break;
    }
  }
  return values;
}

OwnedTensor f32(const std::vector<float>& values) {
  return make_tensor(DType::kF32, Shape({std::ssize(values)}), {values.begin(), values.end()});
}

TEST(OrderFreeKernel, ScaleLeavesRoomForTheMicroBatches) {
  EXPECT_EQ(OrderFreeScale::make(0, 1).shift, 63);
  EXPECT_EQ(OrderFreeScale::make(0, 2).shift, 62);
  EXPECT_EQ(OrderFreeScale::make(0, 3).shift, 61);
  EXPECT_EQ(OrderFreeScale::make(0, 4).shift, 61);
  EXPECT_EQ(OrderFreeScale::make(0, 5).shift, 60);
  EXPECT_EQ(OrderFreeScale::make(-7, 8).shift, 67);
  EXPECT_EQ(OrderFreeScale::make(-1000, 1).exponent, -100);
  EXPECT_EQ(OrderFreeScale::make(1000, 1).exponent, 140);
  EXPECT_TRUE(throws_error([] { OrderFreeScale::make(0, 0); }, ErrorKind::kInvalidArgument, {"micro-batches", "0"}));
}

TEST(OrderFreeKernel, ExponentIsTheSmallestPowerAbove) {
  const auto exponent_of = [](float x) {
    const OwnedTensor tensor = f32({0.0f, -x, x / 2});
    GradientRange range;
    gradient_range(cpu_context(), tensor, range);
    return range.exponent();
  };
  EXPECT_EQ(exponent_of(0.0f), kZeroExponent);
  EXPECT_EQ(exponent_of(1.0f), 1);
  EXPECT_EQ(exponent_of(0.999f), 0);
  EXPECT_EQ(exponent_of(std::numeric_limits<float>::max()), 128);
  EXPECT_EQ(exponent_of(std::numeric_limits<float>::denorm_min()), -148);
  EXPECT_EQ(exponent_of(kInf), 129);
  EXPECT_EQ(exponent_of(kNaN), 129);
}

TEST(OrderFreeKernel, IntegersEqualTheReference) {
  for (const int64_t n : {0, 1, 7, 8, 9, 1003, 40000})
    for (const int32_t exponent : {-100, -20, 0, 13, 127, 140})
      for (const int64_t g : {1, 3, 64}) {
        const OrderFreeScale scale = OrderFreeScale::make(exponent, g);
        const std::vector<float> a = awkward(n, std::min(exponent, 128), scale.shift, 1);
        const std::vector<float> b = awkward(n, std::min(exponent, 128), scale.shift, 2);
        OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({n}), 0x77);
        GradientRange range;
        order_free_add(cpu_context(2), scale, f32(a), sums, GradMode::kOverwrite, range);
        if (g > 1) order_free_add(cpu_context(2), scale, f32(b), sums, GradMode::kAdd, range);
        int64_t wrong = 0;
        uint32_t largest = 0;
        for (size_t i = 0; i < a.size(); ++i) {
          auto want = reference::order_free_integer(a[i], scale.exponent, scale.shift);
          if (g > 1) want += reference::order_free_integer(b[i], scale.exponent, scale.shift);
          wrong += sums.view().data<int64_t>()[i] != want;
          largest = std::max(largest, std::bit_cast<uint32_t>(std::fabs(a[i])));
          if (g > 1) largest = std::max(largest, std::bit_cast<uint32_t>(std::fabs(b[i])));
        }
        EXPECT_EQ(wrong, 0) << n << " elements, exponent " << exponent << ", G " << g;
        EXPECT_EQ(range.largest_bits, largest);
        EXPECT_TRUE(sums.canaries_intact());
      }
}

TEST(OrderFreeKernel, BothBuildsGiveTheSame) {
  if (!cpu_features().avx512) GTEST_SKIP() << "this processor has no AVX-512";
  const OrderFreeScale scale = OrderFreeScale::make(3, 5);
  std::vector<float> values = awkward(5003, 3, scale.shift, 7);
  values[17] = kNaN;
  values[18] = 8.0f;  // 2^3: not allowed
  for (const GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
    std::vector<int64_t> a(values.size(), 11);
    std::vector<int64_t> b(values.size(), 11);
    EXPECT_EQ(cpu::order_free_loop_baseline(scale, values.data(), a.data(), std::ssize(a), mode),
              cpu::order_free_loop_avx512(scale, values.data(), b.data(), std::ssize(b), mode));
    EXPECT_EQ(a, b);
  }
}

TEST(OrderFreeKernel, ValuesOutsideTheLimitAddNothingAndAreSeen) {
  for (const float bad : {kNaN, -kNaN, kInf, -kInf, 4.0f, -5.0f}) {
    const OwnedTensor gradient = f32({1.0f, bad, -2.0f});
    const OrderFreeScale scale = OrderFreeScale::make(2, 1);
    OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({3}), 0);
    GradientRange range;
    order_free_add(cpu_context(), scale, gradient, sums, GradMode::kAdd, range);
    EXPECT_EQ(sums.view().data<int64_t>()[1], 0);
    EXPECT_EQ(range.finite(), std::isfinite(bad) != 0);
    EXPECT_GT(range.exponent(), 2);
    EXPECT_EQ(first_non_finite(gradient), std::isfinite(bad) ? -1 : 1);
    OwnedTensor back = testing::filled_tensor(DType::kF32, Shape({3}), 0);
    order_free_value(cpu_context(), scale, sums, back);
    EXPECT_EQ(testing::values_of(back), (std::vector<double>{1, 0, -2}));
  }
}

TEST(OrderFreeKernel, ValuesComeBackRoundedAsTheReference) {
  Random random(3, RandomPurpose::kSynthetic);
  const OrderFreeScale scale = OrderFreeScale::make(-9, 12);
  const int64_t n = 20001;
  OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({n}), 0);
  for (int64_t i = 0; i < n; ++i) sums.view().data<int64_t>()[i] = static_cast<int64_t>(random.next_u64()) >> (i % 64);
  OwnedTensor back = testing::filled_tensor(DType::kF32, Shape({n}), 0x77);
  order_free_value(cpu_context(2), scale, sums, back);
  int64_t wrong = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double want = std::ldexp(reference::nearest_double(sums.view().data<int64_t>()[i]), -scale.shift);
    wrong += !(back.view().data<float>()[i] == static_cast<float>(want));
  }
  EXPECT_EQ(wrong, 0);
}

TEST(OrderFreeKernel, SquareSumsDoNotDependOnThreadsAndAreExactForSmallIntegers) {
  const int64_t n = 3 * kSquareSumBlock + 13;
  const OwnedTensor values = random_tensor(DType::kF32, Shape({n}), 5);
  OwnedTensor one = testing::filled_tensor(DType::kF64, Shape({4}), 0);
  OwnedTensor two = testing::filled_tensor(DType::kF64, Shape({4}), 0x77);
  block_square_sums(cpu_context(1), values, one);
  block_square_sums(cpu_context(2), values, two);
  EXPECT_TRUE(same_bits(one, two));
  std::vector<float> counting;
  for (int64_t i = 0; i < n; ++i) counting.push_back(static_cast<float>(i % 5));
  block_square_sums(cpu_context(), f32(counting), one);
  std::vector<double> want(4);
  for (int64_t i = 0; i < n; ++i)
    want[static_cast<size_t>(i / kSquareSumBlock)] += static_cast<double>((i % 5) * (i % 5));
  EXPECT_TRUE(testing::all_close(one, want, {}));
  // Above f32's reach: the sum is kept in f64.
  block_square_sums(cpu_context(), f32({1e30f, 1e-30f}), make_tensor(DType::kF64, Shape({1}), {0}));
}

TEST(OrderFreeKernel, ShapesAndDtypesAreChecked) {
  const OwnedTensor gradient = random_tensor(DType::kF32, Shape({4}), 1);
  const OwnedTensor half = random_tensor(DType::kBF16, Shape({4}), 1);
  const OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({4}), 0);
  const OwnedTensor short_sums = testing::filled_tensor(DType::kI64, Shape({3}), 0);
  GradientRange range;
  const auto scale = OrderFreeScale::make(0, 1);
  const auto shape = ErrorKind::kShapeMismatch;
  EXPECT_TRUE(throws_error([&] { order_free_add(cpu_context(), scale, half, sums, GradMode::kAdd, range); }, shape,
                           {"order_free_add: gradient", "bf16"}));
  EXPECT_TRUE(throws_error([&] { order_free_add(cpu_context(), scale, gradient, short_sums, GradMode::kAdd, range); },
                           shape, {"order_free_add: sums must be (4) i64", "(3)"}));
  EXPECT_TRUE(throws_error([&] { plain_add(cpu_context(), gradient, sums, GradMode::kAdd, range); }, shape,
                           {"plain_add: sums", "i64"}));
  EXPECT_TRUE(throws_error([&] { order_free_value(cpu_context(), scale, short_sums, gradient); }, shape,
                           {"order_free_value: gradient must be (3) f32"}));
  EXPECT_TRUE(throws_error([&] { block_square_sums(cpu_context(), gradient, sums); }, shape,
                           {"block_square_sums: sums must be (1) f64"}));
}

}  // namespace
}  // namespace permafrost
