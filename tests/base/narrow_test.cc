#include "core/base/narrow.h"

#include <limits>

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(Narrow, KeepsWhatFits) {
  EXPECT_EQ(narrow<int>(int64_t{2147483647}), 2147483647);
  EXPECT_EQ(narrow<int>(int64_t{-2147483648}), std::numeric_limits<int>::min());
  EXPECT_EQ(narrow<uint8_t>(255), 255);
  EXPECT_EQ(narrow<int64_t>(uint64_t{5}), 5);
}

TEST(Narrow, RefusesWhatDoesNot) {
  EXPECT_TRUE(
      throws_error([] { narrow<int>(int64_t{2147483648}); }, ErrorKind::kInvalidArgument, {"narrow: 2147483648"}));
  EXPECT_TRUE(throws_error([] { narrow<int>(int64_t{-2147483649}); }, ErrorKind::kInvalidArgument, {"-2147483649"}));
  EXPECT_TRUE(throws_error([] { narrow<size_t>(-1); }, ErrorKind::kInvalidArgument, {"narrow: -1"}));
  EXPECT_TRUE(throws_error([] { narrow<int64_t>(UINT64_MAX); }, ErrorKind::kInvalidArgument, {"18446744073709551615"}));
}

TEST(Division, ExactAndRounded) {
  EXPECT_EQ(div_exact(12, 4), 3);
  EXPECT_EQ(div_exact(0, 4), 0);
  EXPECT_TRUE(
      throws_error([] { div_exact(13, 4); }, ErrorKind::kInvalidArgument, {"div_exact: 13 is not a multiple of 4"}));
  EXPECT_TRUE(throws_error([] { div_exact(13, 0); }, ErrorKind::kInvalidArgument, {"13", "0"}));
  EXPECT_EQ(div_up(0, 4), 0);
  EXPECT_EQ(div_up(1, 4), 1);
  EXPECT_EQ(div_up(4, 4), 1);
  EXPECT_EQ(div_up(5, 4), 2);
  EXPECT_EQ(round_up(5, 4), 8);
  EXPECT_EQ(round_up(8, 4), 8);
}

}  // namespace
}  // namespace permafrost::testing
