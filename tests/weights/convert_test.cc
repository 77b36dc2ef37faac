#include "core/weights/convert.h"

#include <cmath>
#include <limits>

#include "core/device/cpu_features.h"
#include "core/weights/convert_loops.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

std::vector<uint16_t> all_16_bit_patterns() {
  std::vector<uint16_t> all(65536);
  for (uint32_t i = 0; i < 65536; ++i) all[i] = static_cast<uint16_t>(i);
  return all;
}

/// Floats of every exponent, with mantissas on, just below and just above halfway points.
std::vector<float> awkward_floats() {
  std::vector<float> values;
  Random random(3, RandomPurpose::kSynthetic);
  for (uint32_t top = 0; top < 65536; ++top)
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu, random.next_u32() >> 16})
      values.push_back(std::bit_cast<float>(top << 16 | low));
  for (uint32_t i = 0; i < 200000; ++i)  // where f16 rounds: 13 bits are dropped
    values.push_back(std::bit_cast<float>(0x33000000u + i * 4096u));
  return values;
}

TEST(ConvertBlock, ReadsEveryHalfPrecisionPattern) {
  const auto bits = all_16_bit_patterns();
  std::vector<float> out(bits.size());
  auto statistics = convert_block(DType::kF16, bits.data(), DType::kF32, out.data(), 65536);
  EXPECT_EQ(statistics.elements, 65536);
  EXPECT_EQ(statistics.non_finite, 2 * 1024);
  EXPECT_EQ(statistics.overflowed, 0);
  for (size_t i = 0; i < bits.size(); ++i) {
    float16 half;
    half.bits = bits[i];
    ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(static_cast<float>(half))) << i;
  }
  statistics = convert_block(DType::kBF16, bits.data(), DType::kF32, out.data(), 65536);
  EXPECT_EQ(statistics.non_finite, 2 * 128);
  for (size_t i = 0; i < bits.size(); ++i) ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), static_cast<uint32_t>(i) << 16);
}

TEST(ConvertBlock, RoundsLikeTheScalarTypes) {
  const auto values = awkward_floats();
  std::vector<uint16_t> out(values.size());
  convert_block(DType::kF32, values.data(), DType::kF16, out.data(), static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(out[i], float16(values[i]).bits) << values[i];
  convert_block(DType::kF32, values.data(), DType::kBF16, out.data(), static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(out[i], bfloat16(values[i]).bits) << values[i];
}

TEST(ConvertBlock, EveryProcessorGivesTheSameBits) {
  if (!cpu_features().avx2) GTEST_SKIP() << "this processor has no AVX2 to compare with";
  const ConvertLoops &plain = kConvertLoops, &wide = convert_loops_avx2();
  const auto values = awkward_floats();
  const auto bits = all_16_bit_patterns();
  const int n = static_cast<int>(values.size());
  std::vector<uint16_t> a(values.size()), b(values.size());
  plain.f32_to_f16(values.data(), a.data(), n);
  wide.f32_to_f16(values.data(), b.data(), n);
  EXPECT_EQ(a, b);
  plain.f32_to_bf16(values.data(), a.data(), n);
  wide.f32_to_bf16(values.data(), b.data(), n);
  EXPECT_EQ(a, b);
  std::vector<float> x(65536), y(65536);
  plain.f16_to_f32(bits.data(), x.data(), 65536);
  wide.f16_to_f32(bits.data(), y.data(), 65536);
  EXPECT_EQ(std::memcmp(x.data(), y.data(), 65536 * 4), 0);
  ConvertCounts c, d;
  plain.count(x.data(), y.data(), 65536, c);
  wide.count(x.data(), y.data(), 65536, d);
  plain.change(values.data(), x.data(), 65536, c);
  wide.change(values.data(), x.data(), 65536, d);
  EXPECT_EQ(c.non_finite, d.non_finite);
  EXPECT_EQ(c.change_bits, d.change_bits);
}

TEST(ConvertBlock, OddLengthsTouchNothingElse) {
  for (const int64_t n : {0, 1, 7, 8, 9, 2047, 2048, 2049, 5000}) {
    const OwnedTensor source = random_tensor(DType::kF32, {n}, 11);
    for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
      const OwnedTensor target = filled_tensor(to, {n}, 0x77);
      convert_block(DType::kF32, source.view().raw(), to, target.view().raw(), n);
      EXPECT_TRUE(target.canaries_intact()) << n << to_string(to);
      EXPECT_TRUE(all_close(target, values_of(source), {1e-7, 0x1p-8})) << n;
    }
  }
}

TEST(ConvertBlock, RoundsDoublesOnce) {
  // 1 + 2^-8 + 2^-40 lies just above halfway between two bf16; by way of f32 it would land on the half and round down.
  const double above = 1 + 0x1p-8 + 0x1p-40, below = 1 + 3 * 0x1p-8 - 0x1p-40;
  const std::vector<double> values{above, below, -above, 1e300, -0.0, 0x1p-133 + 0x1p-160};
  std::vector<bfloat16> out(values.size());
  const auto statistics =
      convert_block(DType::kF64, values.data(), DType::kBF16, out.data(), static_cast<int64_t>(values.size()), true);
  EXPECT_EQ(static_cast<float>(out[0]), 1 + 0x1p-7f);
  EXPECT_EQ(static_cast<float>(out[1]), 1 + 0x1p-7f);
  EXPECT_EQ(static_cast<float>(out[2]), -1 - 0x1p-7f);
  EXPECT_EQ(out[3].bits, 0x7f80);
  EXPECT_EQ(out[4].bits, 0x8000);
  EXPECT_EQ(static_cast<float>(out[5]), 0x1p-133f);
  EXPECT_EQ(statistics.overflowed, 1);
  EXPECT_EQ(statistics.non_finite, 0);
  // The same for f16: 1 + 2^-11 is halfway.
  const double half = 1 + 0x1p-11 + 0x1p-40;
  float16 small;
  convert_block(DType::kF64, &half, DType::kF16, &small, 1);
  EXPECT_EQ(static_cast<float>(small), 1 + 0x1p-10f);
  float single = 0;
  convert_block(DType::kF64, &half, DType::kF32, &single, 1);
  EXPECT_EQ(single, 1 + 0x1p-11f);
}

TEST(ConvertBlock, CountsWhatGoesWrong) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values{1, inf, nan, -inf, 65504, 65520, -1e30f, 0, 3};
  std::vector<float16> half(values.size());
  const auto n = static_cast<int64_t>(values.size());
  auto statistics = convert_block(DType::kF32, values.data(), DType::kF16, half.data(), n);
  EXPECT_EQ(statistics.non_finite, 3);
  EXPECT_EQ(statistics.overflowed, 2);
  std::vector<float> same(values.size());
  statistics = convert_block(DType::kF32, values.data(), DType::kF32, same.data(), n);
  EXPECT_EQ(statistics.non_finite, 3);
  EXPECT_EQ(std::memcmp(same.data(), values.data(), values.size() * 4), 0);
  EXPECT_EQ(count_block(DType::kF16, half.data(), n).non_finite, 5);
  const std::vector<double> doubles{1, static_cast<double>(nan), static_cast<double>(inf)};
  EXPECT_EQ(count_block(DType::kF64, doubles.data(), 3).non_finite, 2);
  const int32_t integers[] = {-1, 0x7f800000};
  EXPECT_EQ(count_block(DType::kI32, integers, 2).non_finite, 0);
}

TEST(ConvertBlock, FindsTheLargestRelativeChange) {
  std::vector<float> values(5000, 1.0f);
  values[4999] = 1 + 0x1p-8f;  // halfway: to 1
  values[17] = 0;
  values[18] = std::numeric_limits<float>::quiet_NaN();
  std::vector<bfloat16> out(values.size());
  const double expected = 0x1p-8 / (1 + 0x1p-8);
  EXPECT_NEAR(convert_block(DType::kF32, values.data(), DType::kBF16, out.data(), 5000, true).largest_relative_change,
              expected, 1e-8);
  EXPECT_EQ(convert_block(DType::kF32, values.data(), DType::kBF16, out.data(), 5000, false).largest_relative_change,
            0);
  EXPECT_EQ(convert_block(DType::kF32, values.data(), DType::kBF16, out.data(), 4999, true).largest_relative_change, 0);
}

TEST(ConvertBlock, KnowsItsPairs) {
  const DType all[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kF64, DType::kI64, DType::kI32, DType::kU8};
  for (const DType from : all)
    for (const DType to : all) {
      uint64_t source = 0, target = 0;
      const bool floats = from <= DType::kF64 && to <= DType::kF16;
      EXPECT_EQ(can_convert(from, to), floats || from == to);
      if (can_convert(from, to)) {
        EXPECT_EQ(convert_block(from, &source, to, &target, 1).elements, 1);
      } else {
        EXPECT_TRUE(
            throws_error([&] { convert_block(from, &source, to, &target, 1); }, ErrorKind::kInvalidArgument,
                         {"convert_block", std::string(to_string(from)) + " to " + std::string(to_string(to))}));
      }
    }
}

}  // namespace
}  // namespace permafrost::testing
