#include "core/tensor/shape.h"

#include "core/base/check.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(Shape, ScalarHasOneElement) {
  const Shape scalar;
  EXPECT_EQ(scalar.rank(), 0);
  EXPECT_EQ(scalar.elements(), 1);
  EXPECT_EQ(scalar.str(), "()");
}

TEST(Shape, TellsExtentsAndElements) {
  const Shape shape{2, 197, 768};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[2], 768);
  EXPECT_EQ(shape[-1], 768);
  EXPECT_EQ(shape[-3], 2);
  EXPECT_EQ(shape.elements(), 2 * 197 * 768);
  EXPECT_EQ(shape.str(), "(2, 197, 768)");
  EXPECT_EQ(concat(shape), "(2, 197, 768)");
  EXPECT_EQ(std::vector<int64_t>(shape.dims().begin(), shape.dims().end()), (std::vector<int64_t>{2, 197, 768}));
  EXPECT_EQ(Shape({5, 0, 3}).elements(), 0);
  EXPECT_EQ(Shape({int64_t{1} << 40, 3}).elements(), int64_t{3} << 40);
  const int64_t huge = int64_t{1} << 62;
  for (const Shape& empty : {Shape{0, huge, huge}, Shape{huge, 0, huge}, Shape{huge, huge, 0}})
    EXPECT_EQ(empty.elements(), 0);
}

TEST(Shape, EqualityIsExact) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
  EXPECT_NE(Shape{}, Shape{1});
  const std::vector<int64_t> dims{1, 2, 3, 4, 5, 6};
  EXPECT_EQ(Shape(dims), (Shape{1, 2, 3, 4, 5, 6}));
}

TEST(Shape, RefusesNonsense) {
  EXPECT_TRUE(throws_error(
      [] {
        Shape({1, 1, 1, 1, 1, 1, 1});
      },
      ErrorKind::kInvalidArgument, {"at most 6 axes; got 7"}));
  EXPECT_TRUE(throws_error([] { Shape({2, -1}); }, ErrorKind::kInvalidArgument, {"not be negative; got -1"}));
  const Shape shape{2, 3};
  EXPECT_TRUE(throws_error([&] { (void)shape[2]; }, ErrorKind::kInvalidArgument, {"2 axes; got 2"}));
  EXPECT_TRUE(throws_error([&] { (void)shape[-3]; }, ErrorKind::kInvalidArgument, {"2 axes; got -3"}));
  EXPECT_TRUE(throws_error([] { (void)Shape()[0]; }, ErrorKind::kInvalidArgument, {"0 axes"}));
  EXPECT_TRUE(throws_error(
      [] {
        Shape({int64_t{1} << 40, int64_t{1} << 40}).elements();
      },
      ErrorKind::kInvalidArgument, {"(1099511627776, 1099511627776)", "64 bits"}));
}

}  // namespace
}  // namespace permafrost::testing
