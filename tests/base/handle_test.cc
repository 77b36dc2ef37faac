#include "core/base/handle.h"

#include <vector>

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

std::vector<int> closed;

struct Traits {
  using Type = int;
  static Type null() { return -1; }
  static void close(Type raw) noexcept { closed.push_back(raw); }
};
using TestHandle = Handle<Traits>;

class HandleTest : public ::testing::Test {
 protected:
  void SetUp() override { closed.clear(); }
};

TEST_F(HandleTest, NullIsNotClosed) {
  {
    const TestHandle empty;
    EXPECT_FALSE(empty);
    EXPECT_EQ(empty.get(), -1);
  }
  EXPECT_TRUE(closed.empty());
}

TEST_F(HandleTest, ClosesOnceAtTheEnd) {
  {
    const TestHandle handle(5);
    EXPECT_TRUE(handle);
    EXPECT_EQ(handle.get(), 5);
    EXPECT_TRUE(closed.empty());
  }
  EXPECT_EQ(closed, (std::vector<int>{5}));
}

TEST_F(HandleTest, ZeroIsAHandleLikeAnyOther) {
  { const TestHandle handle(0); }
  EXPECT_EQ(closed, (std::vector<int>{0}));
}

TEST_F(HandleTest, MovedFromIsNull) {
  {
    TestHandle a(5);
    const TestHandle b(std::move(a));
    EXPECT_FALSE(a);  // NOLINT: the moved-from state is what is tested
    EXPECT_EQ(b.get(), 5);
  }
  EXPECT_EQ(closed, (std::vector<int>{5}));
}

TEST_F(HandleTest, MoveAssignmentReleasesTheTargetFirst) {
  {
    TestHandle a(5), b(6);
    a = std::move(b);
    EXPECT_EQ(closed, (std::vector<int>{5}));
    EXPECT_FALSE(b);  // NOLINT
    EXPECT_EQ(a.get(), 6);
    a = TestHandle(7);
    EXPECT_EQ(closed, (std::vector<int>{5, 6}));
  }
  EXPECT_EQ(closed, (std::vector<int>{5, 6, 7}));
}

TEST_F(HandleTest, SelfMoveKeepsTheHandle) {
  TestHandle a(5);
  TestHandle& same = a;
  a = std::move(same);
  EXPECT_EQ(a.get(), 5);
  EXPECT_TRUE(closed.empty());
}

TEST_F(HandleTest, ReleaseGivesAwayAndResetCloses) {
  TestHandle a(5);
  EXPECT_EQ(a.release(), 5);
  EXPECT_FALSE(a);
  EXPECT_TRUE(closed.empty());
  TestHandle b(6);
  b.reset();
  b.reset();
  EXPECT_FALSE(b);
  EXPECT_EQ(closed, (std::vector<int>{6}));
}

static_assert(!std::is_copy_constructible_v<TestHandle> && !std::is_copy_assignable_v<TestHandle>);
static_assert(std::is_nothrow_move_constructible_v<TestHandle> && std::is_nothrow_move_assignable_v<TestHandle>);

}  // namespace
}  // namespace permafrost::testing
