#include "core/weights/initializer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/sha256.h"
#include "core/device/cpu_features.h"
#include "core/weights/initializer_loops.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

std::vector<float> make(const Initializer& initializer, uint64_t seed, const std::string& name, int64_t first,
                        int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  fill(initializer, seed, name, DType::kF32, first, std::as_writable_bytes(std::span(values)));
  return values;
}

TEST(Fill, Constants) {
  EXPECT_EQ(make(Initializer::zeros(), 1, "a", 0, 3), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(make(Initializer::ones(), 1, "a", 5, 2), (std::vector<float>{1, 1}));
  EXPECT_EQ(make(Initializer::constant(-0.1f), 1, "a", 0, 1), (std::vector<float>{-0.1f}));
  EXPECT_EQ(make(Initializer::constant(2), 1, "a", 0, 5000), std::vector<float>(5000, 2));
}

TEST(Fill, SlicesAreTheWhole) {
  for (const Initializer& initializer :
       {Initializer::normal(0.02f), Initializer::uniform(0.5f), Initializer::normal(1e-3f, 2e-3f)}) {
    const auto whole = make(initializer, 9, "layers.0.weight", 0, 5000);
    for (const auto& [first, n] :
         {std::pair<int64_t, int64_t>{0, 1}, {1, 1022}, {1023, 2}, {1024, 1024}, {1500, 3000}, {4999, 1}, {77, 0}})
      EXPECT_TRUE(std::ranges::equal(make(initializer, 9, "layers.0.weight", first, n),
                                     std::span(whole).subspan(static_cast<size_t>(first), static_cast<size_t>(n))))
          << to_string(initializer) << " " << first << " " << n;
  }
}

TEST(Fill, ThreadsChangeNoBit) {
  constexpr int64_t kElements = 3'000'001, kFirst = 1234;  // three blocks of threads, none of them at its beginning
  ThreadPool pool(3);
  for (const Initializer& initializer : {Initializer::normal(0.02f, 0.03f), Initializer::constant(0.5f)}) {
    std::vector<float> values(kElements);
    fill(initializer, 3, "a", DType::kF32, kFirst, std::as_writable_bytes(std::span(values)), pool);
    EXPECT_TRUE(values == make(initializer, 3, "a", kFirst, kElements));
  }
  fill(Initializer::ones(), 3, "a", DType::kF32, 0, {}, pool);
}

TEST(Fill, DependsOnSeedAndNameOnly) {
  const auto a = make(Initializer::normal(1), 1, "a", 0, 100);
  EXPECT_EQ(a, make(Initializer::normal(1), 1, "a", 0, 100));
  EXPECT_NE(a, make(Initializer::normal(1), 2, "a", 0, 100));
  EXPECT_NE(a, make(Initializer::normal(1), 1, "b", 0, 100));
}

/// First values from the definition, in double, by way of the ordinary random stream.
TEST(Fill, FollowsItsDefinition) {
  const std::string name = "connector.0.weight";
  const uint64_t hash = std::stoull(sha256(name.data(), name.size()).substr(0, 16), nullptr, 16);
  const Random stream(5, RandomPurpose::kInit, 0, hash);
  const auto normal = make(Initializer::normal(3), 5, name, 1024 * 7, 1024);
  const auto uniform = make(Initializer::uniform(3), 5, name, 1024 * 7, 1024);
  for (uint32_t k = 0; k < 256; ++k) {
    const auto words = stream.block(7 * 256 + k);
    for (size_t pair = 0; pair < 2; ++pair) {
      const double u = (words[2 * pair] / 256 + 1) * 0x1p-24, turn = (words[2 * pair + 1] / 256) * 0x1p-24;
      const double radius = 3 * std::sqrt(-2 * std::log(u)), angle = 2 * std::numbers::pi * turn;
      EXPECT_NEAR(normal[512 * pair + k], radius * std::cos(angle), 3e-6) << k;
      EXPECT_NEAR(normal[512 * pair + 256 + k], radius * std::sin(angle), 3e-6) << k;
    }
    for (size_t j = 0; j < 4; ++j)
      EXPECT_NEAR(uniform[256 * j + k], 3 * (((words[j] / 256) + 0.5) * 0x1p-23 - 1), 1e-6);
  }
}

TEST(Fill, NormalHasTheMomentsAndTheShape) {
  const auto values = make(Initializer::normal(2), 3, "x", 0, 1 << 20);
  double mean = 0, square = 0, fourth = 0, correlation = 0;
  int within[3] = {};
  for (size_t i = 0; i < values.size(); ++i) {
    const double z = static_cast<double>(values[i]) / 2;
    ASSERT_TRUE(std::isfinite(z));
    mean += z;
    square += z * z;
    fourth += z * z * z * z;
    correlation += z * static_cast<double>(values[(i + 1) % values.size()]) / 2;
    for (int s = 0; s < 3; ++s) within[s] += std::abs(z) < s + 1;
  }
  const double n = static_cast<double>(values.size());
  // Five standard errors each: 1, sqrt(2), sqrt(96), 1 over sqrt(n) = 1/1024.
  EXPECT_NEAR(mean / n, 0, 5.0 / 1024);
  EXPECT_NEAR(square / n, 1, 5 * 1.42 / 1024);
  EXPECT_NEAR(fourth / n, 3, 5 * 9.8 / 1024);
  EXPECT_NEAR(correlation / n, 0, 5.0 / 1024);
  EXPECT_NEAR(within[0] / n, 0.682689, 0.0025);
  EXPECT_NEAR(within[1] / n, 0.954500, 0.0012);
  EXPECT_NEAR(within[2] / n, 0.997300, 0.0003);
}

TEST(Fill, UniformFillsItsRangeAndClampCuts) {
  const auto values = make(Initializer::uniform(0.25f), 3, "x", 0, 1 << 18);
  const auto [low, high] = std::ranges::minmax(values);
  EXPECT_GT(low, -0.25f);
  EXPECT_LT(low, -0.2499f);
  EXPECT_LT(high, 0.25f);
  EXPECT_GT(high, 0.2499f);
  double mean = 0, square = 0;
  for (const float v : values)
    mean += static_cast<double>(v), square += static_cast<double>(v) * static_cast<double>(v);
  EXPECT_NEAR(mean / 262144, 0, 5 * 0.25 / std::sqrt(3) / 512);
  EXPECT_NEAR(square / 262144, 0.0625 / 3, 5 * 0.0625 * 0.298 / 512);
  const auto cut = make(Initializer::normal(1e-3f, 2e-3f), 3, "x", 0, 1 << 16);
  const auto [least, most] = std::ranges::minmax(cut);
  EXPECT_EQ(least, -2e-3f);
  EXPECT_EQ(most, 2e-3f);
  const auto at_the_edge = std::ranges::count_if(cut, [](float v) { return std::abs(v) == 2e-3f; });
  EXPECT_NEAR(static_cast<double>(at_the_edge) / 65536, 0.0455, 0.005);
}

TEST(Fill, RoundsToTheDType) {
  const auto values = make(Initializer::normal(0.02f), 1, "w", 100, 3000);
  std::vector<bfloat16> brain(3000);
  std::vector<float16> half(3000);
  fill(Initializer::normal(0.02f), 1, "w", DType::kBF16, 100, std::as_writable_bytes(std::span(brain)));
  fill(Initializer::normal(0.02f), 1, "w", DType::kF16, 100, std::as_writable_bytes(std::span(half)));
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(brain[i].bits, bfloat16(values[i]).bits);
    ASSERT_EQ(half[i].bits, float16(values[i]).bits);
  }
}

TEST(Fill, EveryProcessorGivesTheSameBits) {
  std::vector<const TileLoops*> variants;
  if (cpu_features().avx2) variants.push_back(&tile_loops_avx2());
  if (cpu_features().avx512) variants.push_back(&tile_loops_avx512());
  if (variants.empty()) GTEST_SKIP() << "this processor has nothing to compare with";
  for (uint32_t tile = 0; tile < 200; ++tile) {
    const PhiloxAddress address{{0, tile * 77, 5, 6}, {tile, 99}};
    float expected[kTileValues], got[kTileValues];
    for (const TileLoops* variant : variants) {
      kTileLoops.normal(address, tile << 24, expected);
      variant->normal(address, tile << 24, got);
      ASSERT_EQ(std::memcmp(expected, got, sizeof got), 0);
      kTileLoops.uniform(address, tile << 24, expected);
      variant->uniform(address, tile << 24, got);
      ASSERT_EQ(std::memcmp(expected, got, sizeof got), 0);
    }
  }
}

/// Written down once: a change of these numbers changes every seeded run.
TEST(Fill, BitsStayTheSame) {
  std::vector<float> values = make(Initializer::normal(1), 42, "a.weight", 0, 4096);
  EXPECT_EQ(sha256(values.data(), values.size() * 4),
            "f102f86b8a4b9a602067c005d9120815cbb6cd782b107e825a3f936087b363fc");
  values = make(Initializer::uniform(1), 42, "a.weight", 0, 4096);
  EXPECT_EQ(sha256(values.data(), values.size() * 4),
            "d7069850f20d8792f52393d43541a0dbb65d6b7b5b4665be0e0ea1d89adf771e");
}

TEST(Fill, RefusesNonsense) {
  std::vector<std::byte> out(8);
  const auto refuses = [&](const Initializer& initializer, DType dtype, int64_t first, size_t bytes,
                           const std::string& part) {
    return throws_error([&] { fill(initializer, 1, "p", dtype, first, std::span(out).first(bytes)); },
                        ErrorKind::kInvalidArgument, {part, "[param=p]"});
  };
  EXPECT_TRUE(refuses(Initializer::ones(), DType::kI32, 0, 8, "f32, bf16 or f16; got i32"));
  EXPECT_TRUE(refuses(Initializer::ones(), DType::kF32, 0, 7, "whole elements; got 7 bytes"));
  EXPECT_TRUE(refuses(Initializer::normal(-1), DType::kF32, 0, 8, "normal(-1)"));
  EXPECT_TRUE(refuses(Initializer::uniform(std::nanf("")), DType::kF32, 0, 8, "uniform(nan)"));
  EXPECT_TRUE(refuses(Initializer::normal(1, -1), DType::kF32, 0, 8, "not negative"));
  EXPECT_TRUE(refuses(Initializer::normal(1), DType::kF32, -1, 8, "from -1"));
  EXPECT_TRUE(refuses(Initializer::normal(1), DType::kF32, int64_t{1} << 34, 8, "0..17179869184"));
  fill(Initializer::normal(1), 1, "p", DType::kF32, (int64_t{1} << 34) - 2, out);  // the last ones
  EXPECT_EQ(to_string(Initializer::normal(1e-3f, 2e-3f)), "normal(0.001, clamp 0.002)");
}

}  // namespace
}  // namespace permafrost::testing
