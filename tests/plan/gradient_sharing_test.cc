#include "parallel/plan/gradient_sharing.h"

#include <gtest/gtest.h>

namespace permafrost {
namespace {

// A residual: out = x + f(x). Values: 0 = x, 1 = f's result, 2 = out. Backward: step 0 writes d out, step 1 is the
// addition, step 2 is f's backward (reads d1, adds to d0), step 3 reads d0.
std::vector<GradientUse> residual() { return {{{1, 2}, {3}}, {{1}, {2}}, {{0}, {1}}}; }

TEST(GradientSharing, BranchIsReadInTheStepThatAddsToTheStream) {
  // f is one operation here: it reads d1 in the very step in which it adds to d0, so both must not be one buffer.
  GradientSharing sharing(residual());
  EXPECT_TRUE(sharing.try_share(2, 0, 1));
  EXPECT_FALSE(sharing.try_share(2, 1, 1));
  EXPECT_EQ(sharing.classes().size(), 2u);
}

TEST(GradientSharing, LongerBranchLeavesOneBuffer) {
  // f has two operations: d1 is read at step 2, the stream is added to at step 3.
  std::vector<GradientUse> uses = {{{1, 3}, {4}}, {{1}, {2}}, {{0}, {1}}};
  GradientSharing sharing(uses);
  EXPECT_TRUE(sharing.try_share(2, 0, 1));
  EXPECT_TRUE(sharing.try_share(2, 1, 1));
  const auto classes = sharing.classes();
  ASSERT_EQ(classes.size(), 1u);
  EXPECT_EQ(classes[0].first_step, 0);
  EXPECT_EQ(classes[0].last_step, 4);
}

TEST(GradientSharing, ClobberedBranchIsNotShared) {
  // The branch's producer destroys d1 at step 2 while d0 is still needed at step 4.
  std::vector<GradientUse> uses = {{{1, 3}, {4}}, {{1, 2}, {2}}, {{0}, {1}}};
  GradientSharing sharing(uses);
  EXPECT_TRUE(sharing.try_share(2, 0, 1));
  EXPECT_FALSE(sharing.try_share(2, 1, 1));
}

TEST(GradientSharing, KeptGradientIsNotDisturbed) {
  // d out is also read at the end (kept for probing): the stream may not add into it.
  std::vector<GradientUse> uses = {{{1, 3}, {4}}, {{1}, {2}}, {{0}, {1, 9}}};
  GradientSharing sharing(uses);
  EXPECT_FALSE(sharing.try_share(2, 0, 1));
}

TEST(GradientSharing, GradientsThatDoNotExistHaveNoClass) {
  GradientSharing sharing({{{}, {}}, {{1}, {2}}});
  ASSERT_EQ(sharing.classes().size(), 1u);
  EXPECT_EQ(sharing.classes()[0].members, std::vector<int>{1});
}

}  // namespace
}  // namespace permafrost
