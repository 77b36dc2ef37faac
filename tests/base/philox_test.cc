#include "core/base/philox.h"

#include <cmath>
#include <fstream>
#include <set>

#include "core/base/json.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

using Words = std::array<uint32_t, 4>;

/// Published with Random123 (examples/kat_vectors, philox4x32 10).
TEST(Philox, PublishedKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, GoldenFile) {
  std::ifstream in(golden_path("philox.json"));
  if (!in) GTEST_SKIP() << "no " << golden_path("philox.json");
  const auto golden = parse_json(in);
  ASSERT_GE(golden["vectors"].size(), 10u);
  for (const auto& vector : golden["vectors"])
    EXPECT_EQ(philox4x32(vector["counter"].get<Words>(), vector["key"].get<std::array<uint32_t, 2>>()),
              vector["out"].get<Words>())
        << json_text(vector);
}

TEST(Random, EveryPartOfTheAddressCounts) {
  const RandomPurpose init = RandomPurpose::kInit;
  const Random streams[] = {
      {1, init},         {2, init},       {uint64_t{1} << 32, init},       {1, RandomPurpose::kDropout},
      {1, init, 1},      {1, init, 0, 1}, {1, init, 0, uint64_t{1} << 32}, {1, init, 0, 0, 1},
      {1, init, 1, 1, 1}};
  std::set<Words> first;
  for (const Random& stream : streams) {
    first.insert(stream.block(0));
    first.insert(stream.block(1));
  }
  EXPECT_EQ(first.size(), 2 * std::size(streams));
}

TEST(Random, DrawsWalkTheBlocks) {
  Random random(3, RandomPurpose::kAugment, 4, 5, 6);
  const Random untouched = random;
  for (uint32_t index = 0; index < 5; ++index)
    for (const uint32_t word : untouched.block(index)) EXPECT_EQ(random.next_u32(), word);
  EXPECT_EQ(random.block(0), untouched.block(0));  // whatever was drawn
  Random again(3, RandomPurpose::kAugment, 4, 5, 6);
  const uint64_t high = untouched.block(0)[0], low = untouched.block(0)[1];
  EXPECT_EQ(again.next_u64(), high << 32 | low);
}

TEST(Random, TellsItsAddress) {
  const Random random(3, RandomPurpose::kInit, 4, 5, 6);
  for (const uint32_t index : {0u, 7u, 0xffffffffu})
    EXPECT_EQ(random.block(index),
              philox4x32({index, random.counter()[1], random.counter()[2], random.counter()[3]}, random.key()));
}

TEST(Random, UniformsStayInRange) {
  Random random(1, RandomPurpose::kSynthetic);
  double sum = 0;
  for (int i = 0; i < 100000; ++i) {
    const float f = random.next_float();
    const double d = random.next_double();
    ASSERT_TRUE(f >= 0.0f && f < 1.0f);
    ASSERT_TRUE(d >= 0.0 && d < 1.0);
    sum += static_cast<double>(f) + d;
  }
  EXPECT_NEAR(sum / 200000, 0.5, 5 * 0.2887 / std::sqrt(200000.0));
}

TEST(Random, BelowIsUniform) {
  Random random(1, RandomPurpose::kSynthetic);
  int counts[7] = {};
  for (int i = 0; i < 70000; ++i) {
    const uint64_t draw = random.next_below(7);
    ASSERT_LT(draw, 7u);
    ++counts[draw];
  }
  for (const int count : counts) EXPECT_NEAR(count, 10000, 5 * std::sqrt(10000.0 * 6 / 7));
  EXPECT_EQ(random.next_below(1), 0u);
  for (int i = 0; i < 100; ++i) EXPECT_LT(random.next_below(uint64_t{1} << 63 | 1), uint64_t{1} << 63 | 1);
  EXPECT_TRUE(throws_error([&] { random.next_below(0); }, ErrorKind::kInvalidArgument, {"next_below", "positive"}));
}

TEST(Random, NormalHasItsMoments) {
  Random random(1, RandomPurpose::kSynthetic);
  double sum = 0, square = 0, fourth = 0;
  constexpr int kDraws = 200000;
  for (int i = 0; i < kDraws; ++i) {
    const double z = random.next_normal();
    ASSERT_TRUE(std::isfinite(z));
    sum += z;
    square += z * z;
    fourth += z * z * z * z;
  }
  const double error = 1 / std::sqrt(kDraws);
  EXPECT_NEAR(sum / kDraws, 0, 5 * error);
  EXPECT_NEAR(square / kDraws, 1, 5 * 1.42 * error);
  EXPECT_NEAR(fourth / kDraws, 3, 5 * 9.8 * error);
}

TEST(PermuteIndex, IsAPermutationOfEverySmallSize) {
  for (uint64_t size = 1; size <= 300; ++size) {
    std::vector<bool> seen(size);
    for (uint64_t position = 0; position < size; ++position) {
      const uint64_t element = permute_index(position, size, 11, 2);
      ASSERT_LT(element, size);
      ASSERT_FALSE(seen[element]) << size << " " << position;
      seen[element] = true;
    }
  }
}

TEST(PermuteIndex, IsAPermutationOfALargerSize) {
  constexpr uint64_t kSize = 118287;  // COCO's training images
  std::vector<bool> seen(kSize);
  for (uint64_t position = 0; position < kSize; ++position) seen[permute_index(position, kSize, 1, 0)] = true;
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), static_cast<int64_t>(kSize));
}

/// Any position of an order far too long to be stored: no memory, a handful of rounds each.
TEST(PermuteIndex, EntersHugeOrdersAnywhere) {
  for (const uint64_t size : {(uint64_t{1} << 62) + 1, uint64_t{1} << 63, UINT64_MAX}) {
    std::set<uint64_t> elements;
    for (uint64_t i = 0; i < 2000; ++i) {
      const uint64_t element = permute_index(size - 1 - i * 1000003, size, 5, 1);
      ASSERT_LT(element, size);
      elements.insert(element);
    }
    EXPECT_EQ(elements.size(), 2000u);
  }
}

TEST(PermuteIndex, SeedAndEpochChangeTheOrder) {
  constexpr uint64_t kSize = 1000;
  int same_seed = 0, same_epoch = 0, fixed = 0, ascents = 0;
  for (uint64_t i = 0; i < kSize; ++i) {
    const uint64_t element = permute_index(i, kSize, 1, 0);
    EXPECT_EQ(element, permute_index(i, kSize, 1, 0));
    same_seed += element == permute_index(i, kSize, 2, 0);
    same_epoch += element == permute_index(i, kSize, 1, 1);
    fixed += element == i;
    ascents += i + 1 < kSize && element < permute_index(i + 1, kSize, 1, 0);
  }
  // Each of the first three is about Poisson(1); ascents of a random order have mean n/2, variance n/12.
  EXPECT_LE(same_seed, 8);
  EXPECT_LE(same_epoch, 8);
  EXPECT_LE(fixed, 8);
  EXPECT_NEAR(ascents, 500, 5 * std::sqrt(1000.0 / 12));
}

/// Where each element of a short order lands over many epochs: chi-square of a uniform table.
TEST(PermuteIndex, SpreadsEvenlyOverEpochs) {
  constexpr uint64_t kSize = 13;
  constexpr uint32_t kEpochs = 13000;
  std::array<std::array<int, kSize>, kSize> counts{};
  for (uint32_t epoch = 0; epoch < kEpochs; ++epoch)
    for (uint64_t i = 0; i < kSize; ++i) ++counts[i][permute_index(i, kSize, 7, epoch)];
  double chi_square = 0;
  for (const auto& row : counts)
    for (const int count : row) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  // (13-1)^2 = 144 degrees of freedom: mean 144, standard deviation 17.
  EXPECT_LT(chi_square, 144 + 5 * 17);
}

TEST(PermuteIndex, RefusesPositionsOutside) {
  EXPECT_TRUE(throws_error([] { permute_index(5, 5, 0, 0); }, ErrorKind::kInvalidArgument,
                           {"permute_index", "below 5; got 5"}));
  EXPECT_TRUE(throws_error([] { permute_index(0, 0, 0, 0); }, ErrorKind::kInvalidArgument, {"below 0"}));
}

}  // namespace
}  // namespace permafrost::testing
