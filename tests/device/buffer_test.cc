#include "core/device/buffer.h"

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(Buffer, IsZeroFilledAndAligned) {
  for (const int64_t bytes :
       {int64_t{1}, int64_t{4096}, int64_t{5000}, (int64_t{2} << 20) - 1, int64_t{2} << 20, (int64_t{5} << 20) + 3}) {
    const Buffer buffer("weights", bytes);
    EXPECT_EQ(buffer.bytes(), bytes);
    EXPECT_EQ(buffer.name(), "weights");
    const uintptr_t alignment = bytes >= int64_t{2} << 20 ? uintptr_t{2} << 20 : 4096;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % alignment, 0u) << bytes;
    for (int64_t i = 0; i < bytes; ++i) ASSERT_EQ(buffer.data()[i], std::byte{0}) << i;
    buffer.data()[0] = buffer.data()[bytes - 1] = std::byte{1};
  }
}

TEST(Buffer, EmptyHoldsNothing) {
  const Buffer none, empty("empty", 0);
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(empty.data(), nullptr);
  EXPECT_EQ(empty.bytes(), 0);
}

TEST(Buffer, MovesOwnership) {
  Buffer a("a", 100);
  std::byte* const data = a.data();
  data[99] = std::byte{7};
  Buffer b(std::move(a));
  EXPECT_EQ(b.data(), data);
  EXPECT_EQ(b.name(), "a");
  EXPECT_EQ(a.data(), nullptr);  // NOLINT: the moved-from state is what is tested
  EXPECT_EQ(a.bytes(), 0);       // NOLINT
  Buffer c("c", 5 << 20);
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.bytes(), 100);
  EXPECT_EQ(c.name(), "a");
  EXPECT_EQ(c.data()[99], std::byte{7});
  Buffer& same = c;
  c = std::move(same);
  EXPECT_EQ(c.data(), data);
  a = Buffer("again", 10);
  EXPECT_EQ(a.bytes(), 10);
}

TEST(Buffer, NamesWhatDidNotFit) {
  EXPECT_TRUE(throws_error([] { Buffer("arena", int64_t{1} << 60); }, ErrorKind::kStorage,
                           {"Buffer arena", "cannot map 1152921504606846976 bytes", "Cannot allocate memory"}));
  EXPECT_TRUE(throws_error([] { Buffer("arena", INT64_MAX); }, ErrorKind::kInvalidArgument,
                           {"Buffer arena", "9223372036854775807"}));
  EXPECT_TRUE(throws_error([] { Buffer("arena", -1); }, ErrorKind::kInvalidArgument,
                           {"Buffer arena", "not be negative; got -1"}));
}

}  // namespace
}  // namespace permafrost::testing
