#include "core/weights/block_hash.h"

#include "core/base/philox.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

std::vector<std::byte> random_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  Random random(3, RandomPurpose::kSynthetic);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next_u32());
  return bytes;
}

BlockHashSum sum_of(std::string_view name, std::span<const std::byte> bytes) {
  BlockHashSum sum{};
  BlockHasher().add(name, 0, bytes, sum);
  return sum;
}

TEST(BlockHash, IsTheSumOfItsBlocks) {
  const std::vector<std::byte> bytes = random_bytes(4096 + 5);
  BlockHashSum want{};
  for (const auto& [block, length] : {std::pair<uint64_t, uint64_t>{0, 4096}, {1, 5}}) {
    std::string text = "unit\n" + std::string(16, '\0');
    std::memcpy(text.data() + 5, &block, 8);
    std::memcpy(text.data() + 13, &length, 8);
    text.append(reinterpret_cast<const char*>(bytes.data()) + 4096 * block, length);
    const std::string hex = sha256(text.data(), text.size());
    for (size_t lane = 0; lane < 4; ++lane)
      want[lane] += __builtin_bswap64(std::stoull(hex.substr(16 * lane, 16), nullptr, 16));
  }
  EXPECT_EQ(sum_of("unit", bytes), want);
  EXPECT_EQ(to_hex({1, 0, 0xABC, ~uint64_t{0}}),
            "00000000000000010000000000000000"
            "0000000000000abcffffffffffffffff");
  EXPECT_EQ(sum_of("unit", {}), BlockHashSum{});
}

TEST(BlockHash, DoesNotDependOnTheSplit) {
  const std::vector<std::byte> bytes = random_bytes(20 * 4096 + 100);
  const BlockHashSum whole = sum_of("u", bytes);
  BlockHasher hasher;
  BlockHashSum parts{};
  for (const auto& [first, end] : {std::pair<size_t, size_t>{7, 21}, {0, 3}, {3, 7}})
    hasher.add("u", static_cast<int64_t>(first),
               std::span(bytes).subspan(4096 * first, std::min(4096 * end, bytes.size()) - 4096 * first), parts);
  EXPECT_EQ(parts, whole);
}

TEST(BlockHash, SeesFlippedBitsExchangedBlocksAndNames) {
  std::vector<std::byte> bytes = random_bytes(3 * 4096);
  const BlockHashSum whole = sum_of("u", bytes);
  EXPECT_NE(sum_of("v", bytes), whole);
  for (const size_t at : {size_t{0}, size_t{5000}, bytes.size() - 1}) {
    bytes[at] ^= std::byte{0x10};
    EXPECT_NE(sum_of("u", bytes), whole) << at;
    bytes[at] ^= std::byte{0x10};
  }
  EXPECT_EQ(sum_of("u", bytes), whole);
  std::swap_ranges(bytes.begin(), bytes.begin() + 4096, bytes.begin() + 4096);
  EXPECT_NE(sum_of("u", bytes), whole);
  // Zeros at the end are not nothing.
  EXPECT_NE(sum_of("u", std::vector<std::byte>(10)), sum_of("u", std::vector<std::byte>(11)));
}

}  // namespace
}  // namespace permafrost::testing
