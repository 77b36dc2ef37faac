#include <bit>
#include <cmath>
#include <limits>

#include "core/device/cpu_features.h"
#include "core/kernels/flat_pieces.h"
#include "core/kernels/order_free.h"
#include "core/kernels/order_free_cpu.h"
#include "tests/reference/order_free_ref.h"
#include "tests/support/compare.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using testing::device_context;
using testing::kCpu;
using testing::make_tensor;
using testing::OwnedTensor;
using testing::random_tensor;
using testing::same_bits;
using testing::Target;
using testing::throws_error;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

class OrderFreeKernelTest : public testing::KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, OrderFreeKernelTest, ::testing::Values(kCpu, Target::kCuda), testing::target_name);

OwnedTensor no_range() { return testing::filled_tensor(DType::kI32, Shape{1}, 0); }
GradientRange read_range(const OwnedTensor& range) {
  testing::finish_kernels();
  return {*range.view().data<int32_t>()};
}

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

OwnedTensor at(OrderFreeScale scale) {
  return make_tensor(DType::kI32, Shape{2}, {static_cast<double>(scale.exponent), static_cast<double>(scale.shift)});
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

TEST_P(OrderFreeKernelTest, ExponentIsTheSmallestPowerAbove) {
  const auto exponent_of = [](float x) {
    const OwnedTensor tensor = f32({0.0f, -x, x / 2});
    const OwnedTensor range = no_range();
    gradient_range(device_context(), tensor, range);
    return read_range(range).exponent();
  };
  EXPECT_EQ(exponent_of(0.0f), kZeroExponent);
  EXPECT_EQ(exponent_of(1.0f), 1);
  EXPECT_EQ(exponent_of(0.999f), 0);
  EXPECT_EQ(exponent_of(std::numeric_limits<float>::max()), 128);
  EXPECT_EQ(exponent_of(std::numeric_limits<float>::denorm_min()), -148);
  EXPECT_EQ(exponent_of(kInf), 129);
  EXPECT_EQ(exponent_of(kNaN), 129);
}

TEST_P(OrderFreeKernelTest, IntegersEqualTheReference) {
  for (const int64_t n : {0, 1, 7, 8, 9, 1003, 40000})
    for (const int32_t exponent : {-100, -20, 0, 13, 127, 140})
      for (const int64_t g : {1, 3, 64}) {
        const OrderFreeScale scale = OrderFreeScale::make(exponent, g);
        const std::vector<float> a = awkward(n, std::min(exponent, 128), scale.shift, 1);
        const std::vector<float> b = awkward(n, std::min(exponent, 128), scale.shift, 2);
        OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({n}), 0x77);
        const OwnedTensor range = no_range();
        order_free_add(device_context(2), at(scale), f32(a), sums, GradMode::kOverwrite, range);
        if (g > 1) order_free_add(device_context(2), at(scale), f32(b), sums, GradMode::kAdd, range);
        const GradientRange seen = read_range(range);
        int64_t wrong = 0;
        int32_t largest = 0;
        for (size_t i = 0; i < a.size(); ++i) {
          auto want = reference::order_free_integer(a[i], scale.exponent, scale.shift);
          if (g > 1) want += reference::order_free_integer(b[i], scale.exponent, scale.shift);
          wrong += sums.view().data<int64_t>()[i] != want;
          largest = std::max(largest, std::bit_cast<int32_t>(std::fabs(a[i])));
          if (g > 1) largest = std::max(largest, std::bit_cast<int32_t>(std::fabs(b[i])));
        }
        EXPECT_EQ(wrong, 0) << n << " elements, exponent " << exponent << ", G " << g;
        EXPECT_EQ(seen.largest_bits, largest);
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

TEST_P(OrderFreeKernelTest, ValuesOutsideTheLimitAddNothingAndAreSeen) {
  for (const float bad : {kNaN, -kNaN, kInf, -kInf, 4.0f, -5.0f}) {
    const OwnedTensor gradient = f32({1.0f, bad, -2.0f});
    const OrderFreeScale scale = OrderFreeScale::make(2, 1);
    OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({3}), 0);
    const OwnedTensor range = no_range();
    order_free_add(device_context(), at(scale), gradient, sums, GradMode::kAdd, range);
    const GradientRange seen = read_range(range);
    EXPECT_EQ(sums.view().data<int64_t>()[1], 0);
    EXPECT_EQ(seen.finite(), std::isfinite(bad) != 0);
    EXPECT_GT(seen.exponent(), 2);
    OwnedTensor back = testing::filled_tensor(DType::kF32, Shape({3}), 0);
    order_free_value(device_context(), scale, sums, back);
    EXPECT_EQ(testing::values_of(back), (std::vector<double>{1, 0, -2}));
  }
}

TEST_P(OrderFreeKernelTest, RangesCombineByMaximum) {
  const OwnedTensor range = no_range();
  int32_t largest = 0;
  for (const float x : {1.0f, -3.0f, 2.0f, kInf, -kNaN, 5.0f}) {
    std::vector<float> values(10'001, x / 4);
    values[7001] = x;
    gradient_range(device_context(2), f32(values), range);
    largest = std::max(largest, std::bit_cast<int32_t>(x) & 0x7fffffff);
    EXPECT_EQ(read_range(range).largest_bits, largest);
  }
}

TEST_P(OrderFreeKernelTest, PlainSumsAndRangesAtAnyAlignment) {
  const int64_t n = 5003;
  for (const int64_t first : {0, 1, 4}) {
    const OwnedTensor a = random_tensor(DType::kF32, Shape{n}, 1), b = random_tensor(DType::kF32, Shape{n}, 2);
    const OwnedTensor sums = testing::filled_tensor(DType::kF32, Shape{n}, 0), range = no_range(), both = no_range();
    const auto from = [&](const OwnedTensor& t) { return t.view().rows(first, n); };
    plain_add(device_context(), from(a), from(sums), GradMode::kOverwrite, range);
    plain_add(device_context(), from(b), from(sums), GradMode::kAdd, range);
    for (const OwnedTensor* x : {&a, &b}) gradient_range(device_context(), from(*x), both);
    EXPECT_EQ(read_range(range).largest_bits, read_range(both).largest_bits);
    int64_t wrong = 0;
    float largest = 0;
    for (int64_t i = first; i < n; ++i) {
      const float x = a.view().data<float>()[i], y = b.view().data<float>()[i];
      wrong += sums.view().data<float>()[i] != x + y;
      largest = std::max({largest, std::fabs(x), std::fabs(y)});
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(read_range(range).largest_bits, std::bit_cast<int32_t>(largest));
    EXPECT_TRUE(sums.canaries_intact());
  }
}

TEST_P(OrderFreeKernelTest, SquareSumsHaveTheDocumentedOrder) {
  for (const int64_t n : {0, 1, 7, 8, 13, 4095, 4096, 5000, 9 * 4096 + 1003}) {
    const OwnedTensor values = random_tensor(DType::kF32, Shape{n}, 5, 1e3);
    const int64_t blocks = (n + kSquareSumBlock - 1) / kSquareSumBlock;
    const OwnedTensor got = testing::filled_tensor(DType::kF64, Shape{blocks}, 0x77);
    block_square_sums(device_context(), values, got);
    testing::finish_kernels();
    for (int64_t b = 0; b < blocks; ++b) {
      double p[8] = {};
      for (int64_t i = b * kSquareSumBlock; i < std::min(n, (b + 1) * kSquareSumBlock); ++i) {
        const double x = values.view().data<float>()[i];
        p[i % 8] += x * x;
      }
      EXPECT_EQ(got.view().data<double>()[b], ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7])));
    }
    EXPECT_TRUE(got.canaries_intact());
  }
}

TEST_P(OrderFreeKernelTest, ValuesComeBackRoundedAsTheReference) {
  Random random(3, RandomPurpose::kSynthetic);
  const OrderFreeScale scale = OrderFreeScale::make(-9, 12);
  const int64_t n = 20001;
  OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({n}), 0);
  for (int64_t i = 0; i < n; ++i) sums.view().data<int64_t>()[i] = static_cast<int64_t>(random.next_u64()) >> (i % 64);
  OwnedTensor back = testing::filled_tensor(DType::kF32, Shape({n}), 0x77);
  order_free_value(device_context(2), scale, sums, back);
  testing::finish_kernels();
  int64_t wrong = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double want = std::ldexp(reference::nearest_double(sums.view().data<int64_t>()[i]), -scale.shift);
    wrong += !(back.view().data<float>()[i] == static_cast<float>(want));
  }
  EXPECT_EQ(wrong, 0);
}

/// A slice of two parameters with their own scales, a gap before, between and behind them.
TEST_P(OrderFreeKernelTest, ValuesOfManyParametersAreThoseOfEachAndZeroBetween) {
  const int64_t n = 30'000;
  const std::vector<OrderFreeScale> scales{OrderFreeScale::make(3, 4), OrderFreeScale::make(-20, 4)};
  const OwnedTensor table =
      make_tensor(DType::kI32, Shape{2, 2},
                  {static_cast<double>(scales[0].exponent), static_cast<double>(scales[0].shift),
                   static_cast<double>(scales[1].exponent), static_cast<double>(scales[1].shift)});
  Random random(3, RandomPurpose::kSynthetic);
  const OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({n}), 0);
  for (int64_t i = 0; i < n; ++i) sums.view().data<int64_t>()[i] = static_cast<int64_t>(random.next_u64()) >> (i % 64);
  std::vector<FlatPiece> pieces;
  append_pieces(pieces, {.begin = 32, .elements = 9001, .row = 0}, testing::used_device());
  append_pieces(pieces, {.begin = 9088, .elements = 20'000, .row = 1}, testing::used_device());
  const PieceTable piece_table(pieces, testing::used_device());
  const OwnedTensor got = testing::filled_tensor(DType::kF32, Shape({n}), 0x77);
  const OwnedTensor want = testing::filled_tensor(DType::kF32, Shape({n}), 0);
  order_free_values(device_context(), piece_table.view(), table, sums, got);
  order_free_value(device_context(), scales[0], sums.view().rows(32, 9033), want.view().rows(32, 9033));
  order_free_value(device_context(), scales[1], sums.view().rows(9088, 29'088), want.view().rows(9088, 29'088));
  EXPECT_TRUE(same_bits(got, want));
  EXPECT_TRUE(got.canaries_intact());
}

TEST_P(OrderFreeKernelTest, TheNormIsThatOfTheSumsInTheirOrder) {
  for (const int64_t n : {0, 1, 7, 1024, 5003}) {
    const OwnedTensor sums = random_tensor(DType::kF64, Shape{n}, 4);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += sums.view().data<double>()[i] *= sums.view().data<double>()[i];
    const OwnedTensor norm = testing::filled_tensor(DType::kF64, Shape{1}, 0x77), clip(DType::kF32, Shape{1}),
                      apply = testing::filled_tensor(DType::kI32, Shape{1}, 0x77);
    norm_of_blocks(device_context(), sums, 2.5, norm, clip, apply);
    testing::finish_kernels();
    EXPECT_EQ(*norm.view().data<double>(), std::sqrt(sum)) << n;
    EXPECT_EQ(*clip.view().data<float>(), static_cast<float>(std::min(1.0, 2.5 / (std::sqrt(sum) + 1e-6))));
    EXPECT_EQ(*apply.view().data<int32_t>(), 1);
  }
  for (const double bad : {static_cast<double>(kInf), static_cast<double>(kNaN)}) {
    const OwnedTensor sums = make_tensor(DType::kF64, Shape{3}, {1, bad, 2}), norm(DType::kF64, Shape{1}),
                      clip(DType::kF32, Shape{1}), apply = testing::filled_tensor(DType::kI32, Shape{1}, 0x77);
    norm_of_blocks(device_context(), sums, 0, norm, clip, apply);
    testing::finish_kernels();
    EXPECT_EQ(*apply.view().data<int32_t>(), 0);
    EXPECT_FALSE(std::isfinite(*norm.view().data<double>()));
  }
}

TEST_P(OrderFreeKernelTest, SquareSumsDoNotDependOnThreadsAndAreExactForSmallIntegers) {
  const int64_t n = 3 * kSquareSumBlock + 13;
  const OwnedTensor values = random_tensor(DType::kF32, Shape({n}), 5);
  OwnedTensor one = testing::filled_tensor(DType::kF64, Shape({4}), 0);
  OwnedTensor two = testing::filled_tensor(DType::kF64, Shape({4}), 0x77);
  block_square_sums(device_context(1), values, one);
  block_square_sums(device_context(2), values, two);
  EXPECT_TRUE(same_bits(one, two));
  std::vector<float> counting;
  for (int64_t i = 0; i < n; ++i) counting.push_back(static_cast<float>(i % 5));
  block_square_sums(device_context(), f32(counting), one);
  std::vector<double> want(4);
  for (int64_t i = 0; i < n; ++i)
    want[static_cast<size_t>(i / kSquareSumBlock)] += static_cast<double>((i % 5) * (i % 5));
  EXPECT_TRUE(testing::all_close(one, want, {}));
  // Above f32's reach: the sum is kept in f64.
  block_square_sums(device_context(), f32({1e30f, 1e-30f}), make_tensor(DType::kF64, Shape({1}), {0}));
}

TEST_P(OrderFreeKernelTest, ShapesAndDtypesAreChecked) {
  const OwnedTensor gradient = random_tensor(DType::kF32, Shape({4}), 1);
  const OwnedTensor half = random_tensor(DType::kBF16, Shape({4}), 1);
  const OwnedTensor sums = testing::filled_tensor(DType::kI64, Shape({4}), 0);
  const OwnedTensor short_sums = testing::filled_tensor(DType::kI64, Shape({3}), 0);
  const OwnedTensor range = no_range();
  const auto scale = OrderFreeScale::make(0, 1);
  const OwnedTensor pieces(DType::kI64, Shape{1, 5}), scales(DType::kI32, Shape{1, 2});
  const auto shape = ErrorKind::kShapeMismatch;
  EXPECT_TRUE(throws_error([&] { order_free_add(device_context(), at(scale), half, sums, GradMode::kAdd, range); },
                           shape, {"order_free_add: gradient", "bf16"}));
  EXPECT_TRUE(
      throws_error([&] { order_free_add(device_context(), at(scale), gradient, short_sums, GradMode::kAdd, range); },
                   shape, {"order_free_add: sums must be (4) i64", "(3)"}));
  EXPECT_TRUE(throws_error([&] { order_free_add(device_context(), at(scale), gradient, sums, GradMode::kAdd, {}); },
                           shape, {"order_free_add: range must be (1) i32"}));
  EXPECT_TRUE(throws_error([&] { gradient_range(device_context(), gradient, sums); }, shape,
                           {"gradient_range: range must be (1) i32", "(4) i64"}));
  EXPECT_TRUE(throws_error([&] { plain_add(device_context(), gradient, sums, GradMode::kAdd, range); }, shape,
                           {"plain_add: sums", "i64"}));
  EXPECT_TRUE(throws_error([&] { order_free_value(device_context(), scale, short_sums, gradient); }, shape,
                           {"order_free_value: gradient must be (3) f32"}));
  EXPECT_TRUE(throws_error([&] { order_free_add(device_context(), range, gradient, sums, GradMode::kAdd, range); },
                           shape, {"order_free_add: scale must be (2) i32", "(1)"}));
  EXPECT_TRUE(throws_error([&] { order_free_values(device_context(), scales, scales, sums, gradient); }, shape,
                           {"order_free_values: pieces must be (n, 5) i64"}));
  EXPECT_TRUE(throws_error([&] { order_free_values(device_context(), pieces, scales, sums, half); }, shape,
                           {"order_free_values: slice must be (4) f32", "bf16"}));
  EXPECT_TRUE(throws_error([&] { norm_of_blocks(device_context(), gradient, 0, gradient, gradient, range); }, shape,
                           {"norm_of_blocks: sums must be (n) f64"}));
  EXPECT_TRUE(throws_error([&] { block_square_sums(device_context(), gradient, sums); }, shape,
                           {"block_square_sums: sums must be (1) f64"}));
}

}  // namespace
}  // namespace permafrost
