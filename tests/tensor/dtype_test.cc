#include "core/tensor/dtype.h"

#include <cmath>
#include <limits>

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(DType, NamesAndSizes) {
  const std::tuple<DType, const char*, int64_t> rows[] = {
      {DType::kF32, "f32", 4}, {DType::kBF16, "bf16", 2}, {DType::kF16, "f16", 2}, {DType::kF64, "f64", 8},
      {DType::kI64, "i64", 8}, {DType::kI32, "i32", 4},   {DType::kU8, "u8", 1}};
  ASSERT_EQ(std::size(rows), static_cast<size_t>(DType::kU8) + 1);
  for (const auto& [dtype, name, bytes] : rows) {
    EXPECT_EQ(to_string(dtype), name);
    EXPECT_EQ(size_of(dtype), bytes) << name;
  }
  static_assert(sizeof(bfloat16) == 2 && sizeof(float16) == 2);
  static_assert(DTypeOf<bfloat16>::value == DType::kBF16 && DTypeOf<float16>::value == DType::kF16);
}

uint16_t bits_of(bfloat16 value) { return value.bits; }

TEST(BFloat16, RoundsToNearestEvenByHand) {
  const std::pair<float, uint16_t> rows[] = {{0.0f, 0x0000},
                                             {-0.0f, 0x8000},
                                             {1.0f, 0x3f80},
                                             {-2.0f, 0xc000},
                                             {1 + 0x1p-7f, 0x3f81},             // next after 1
                                             {1 + 0x1p-8f, 0x3f80},             // tie: to even, down
                                             {1 + 3 * 0x1p-8f, 0x3f82},         // tie: to even, up
                                             {1 + 0x1p-8f + 0x1p-20f, 0x3f81},  // just above the tie
                                             {1 + 0x1p-8f - 0x1p-20f, 0x3f80},  // just below
                                             {0x1.fep127f, 0x7f7f},             // largest bf16
                                             {0x1.fefffep127f, 0x7f7f},         // below the last tie
                                             {0x1.ffp127f, 0x7f80},             // the last tie rounds to infinity
                                             {0x1p-126f, 0x0080},
                                             {0x1p-133f, 0x0001},
                                             {0x1p-134f, 0x0000},
                                             {0x1.8p-134f, 0x0001},
                                             {std::numeric_limits<float>::infinity(), 0x7f80},
                                             {-std::numeric_limits<float>::infinity(), 0xff80}};
  for (const auto& [value, bits] : rows) EXPECT_EQ(bits_of(bfloat16(value)), bits) << value;
}

TEST(BFloat16, EveryPatternSurvivesTheRoundTrip) {
  for (uint32_t i = 0; i < 65536; ++i) {
    bfloat16 value;
    value.bits = static_cast<uint16_t>(i);
    const auto wide = static_cast<float>(value);
    ASSERT_EQ(std::bit_cast<uint32_t>(wide), i << 16);
    if (std::isnan(wide)) {
      const bfloat16 back(wide);
      ASSERT_TRUE(std::isnan(static_cast<float>(back))) << i;
      ASSERT_EQ(back.bits & 0x8000, i & 0x8000) << i;
    } else {
      ASSERT_EQ(bfloat16(wide).bits, i);
    }
  }
}

/// Between any two neighbours: the halfway point goes to the even one, its float neighbours to the nearer one.
TEST(BFloat16, EveryTieGoesToEven) {
  for (uint32_t low = 0; low < 0x7f80; ++low) {
    const uint32_t half = low << 16 | 0x8000;
    const uint32_t even = (low & 1) ? low + 1 : low;
    ASSERT_EQ(bfloat16(std::bit_cast<float>(half)).bits, even);
    ASSERT_EQ(bfloat16(std::bit_cast<float>(half - 1)).bits, low);
    ASSERT_EQ(bfloat16(std::bit_cast<float>(half + 1)).bits, low + 1);
    ASSERT_EQ(bfloat16(-std::bit_cast<float>(half)).bits, even | 0x8000);
  }
}

TEST(BFloat16, NaNsWithLowBitsOnlyStayNaN) {
  EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(0xffffffffu)))));
}

/// The value of a pattern from the definition of binary16.
double value_of_half(uint32_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 31);
  const double fraction = (bits & 1023) / 1024.0;
  return sign * (exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1 + fraction, exponent - 15));
}

TEST(Float16, EveryPatternHasItsValueAndSurvivesTheRoundTrip) {
  for (uint32_t i = 0; i < 65536; ++i) {
    float16 half;
    half.bits = static_cast<uint16_t>(i);
    const auto wide = static_cast<float>(half);
    if ((i & 0x7c00) != 0x7c00) {
      ASSERT_EQ(static_cast<double>(wide), value_of_half(i)) << i;
      ASSERT_EQ(float16(wide).bits, i);
    } else if ((i & 0x3ff) == 0) {
      ASSERT_TRUE(std::isinf(wide));
      ASSERT_EQ(float16(wide).bits, i);
    } else {
      ASSERT_TRUE(std::isnan(wide));
      ASSERT_TRUE(std::isnan(static_cast<float>(float16(wide)))) << i;
    }
  }
}

TEST(Float16, EveryTieGoesToEven) {
  for (uint32_t low = 0; low < 0x7c00; ++low) {
    // The midpoint is exact in float; above the largest half it is 65520, as if 65536 were the next one.
    const double next = low == 0x7bff ? 65536 : value_of_half(low + 1);
    const auto half = static_cast<float>((value_of_half(low) + next) / 2);
    const uint32_t even = (low & 1) ? low + 1 : low;
    ASSERT_EQ(float16(half).bits, even) << low;
    ASSERT_EQ(float16(std::nextafter(half, 0.0f)).bits, low);
    ASSERT_EQ(float16(std::nextafter(half, 1e6f)).bits, low + 1);
    ASSERT_EQ(float16(-half).bits, even | 0x8000);
  }
}

TEST(Float16, ExtremesAndSigns) {
  EXPECT_EQ(float16(0.0f).bits, 0x0000);
  EXPECT_EQ(float16(-0.0f).bits, 0x8000);
  EXPECT_EQ(float16(65504.0f).bits, 0x7bff);
  EXPECT_EQ(float16(1e30f).bits, 0x7c00);
  EXPECT_EQ(float16(-1e30f).bits, 0xfc00);
  EXPECT_EQ(float16(std::numeric_limits<float>::infinity()).bits, 0x7c00);
  EXPECT_EQ(float16(0x1p-24f).bits, 0x0001);
  EXPECT_EQ(float16(0x1p-149f).bits, 0x0000);
  EXPECT_EQ(float16(-0x1p-149f).bits, 0x8000);
  EXPECT_EQ(float16(std::bit_cast<float>(0x7f800001u)).bits & 0x7e00, 0x7e00);
}

}  // namespace
}  // namespace permafrost::testing
