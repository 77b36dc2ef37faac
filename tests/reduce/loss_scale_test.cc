#include "parallel/reduce/loss_scale.h"

#include <cmath>
#include <limits>

#include "core/kernels/order_free.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::throws_error;

Vote vote_of(bool finite, std::vector<double> losses) {
  Vote vote;
  vote.finite = finite;
  vote.losses = std::move(losses);
  return vote;
}
const Vote kOverflowed = vote_of(false, {0.5, 1.5});

TEST(LossScale, IsOneForEverWhereNoneIsAskedFor) {
  LossScale scale(std::nullopt, 2);
  EXPECT_FALSE(scale.used());
  EXPECT_FALSE(scale.again(kOverflowed));
  for (int i = 0; i < 5000; ++i) scale.accept();
  EXPECT_EQ(scale.value(), 1);
  EXPECT_EQ(scale.inverse(), 1);
  EXPECT_EQ(scale.position(), std::nullopt);
  const std::vector<int32_t> some{3, -7};
  EXPECT_TRUE(std::ranges::equal(scale.limits(some), some));
  EXPECT_TRUE(std::ranges::equal(scale.exponents(some), some));
  scale.restore(LossScale::Position{5, 1});  // of a run in f16, which this is not
  EXPECT_EQ(scale.value(), 1);
}

TEST(LossScale, HalvesDownToTheFloorAndNoFurther) {
  LossScale scale(LossScaleConfig{2, 100}, 0);
  EXPECT_EQ(scale.value(), 4);
  EXPECT_EQ(scale.inverse(), 0.25f);
  for (int32_t e = 1; e >= LossScale::kSmallest; --e) {
    EXPECT_TRUE(scale.again(kOverflowed)) << e;
    EXPECT_EQ(scale.value(), std::ldexp(1.0f, e));
    EXPECT_EQ(scale.value() * scale.inverse(), 1);
  }
  EXPECT_FALSE(scale.again(kOverflowed));
  EXPECT_EQ(scale.value(), 0x1p-10f);
}

TEST(LossScale, ALossThatIsNotFiniteIsNoMatterOfScale) {
  LossScale scale(LossScaleConfig{}, 0);
  EXPECT_EQ(scale.value(), 65536);
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    EXPECT_FALSE(scale.again(vote_of(false, {0.5, bad}))) << "of whichever rank";
  EXPECT_FALSE(scale.again(vote_of(true, {0.5}))) << "nothing was wrong";
  EXPECT_EQ(scale.value(), 65536);
}

TEST(LossScale, DoublesBehindStepsInARowUpToTheCeiling) {
  LossScale scale(LossScaleConfig{22, 3}, 0);
  const auto steps = [&](int n) {
    for (int i = 0; i < n; ++i) scale.accept();
    return *scale.position();
  };
  EXPECT_EQ(steps(2), (LossScale::Position{22, 2}));
  EXPECT_TRUE(scale.again(kOverflowed));
  EXPECT_EQ(steps(2), (LossScale::Position{21, 2})) << "counted anew";
  EXPECT_EQ(steps(1), (LossScale::Position{22, 0}));
  EXPECT_EQ(steps(6), (LossScale::Position{24, 0}));
  EXPECT_EQ(steps(100), (LossScale::Position{24, 0}));
}

/// What is kept of gradients does not depend on the scale they were measured under.
TEST(LossScale, ExponentsAreThoseOfUnscaledGradients) {
  LossScale scale(LossScaleConfig{10, 100}, 3);
  const std::vector<int32_t> measured{12, kZeroExponent, -5};
  EXPECT_TRUE(std::ranges::equal(scale.exponents(measured), std::vector<int32_t>{2, kZeroExponent, -15}));
  EXPECT_TRUE(std::ranges::equal(scale.limits(std::vector<int32_t>{2, 7, -15}), std::vector<int32_t>{12, 17, -5}));
  EXPECT_TRUE(throws_error(
      [&] {
        scale.limits(std::vector<int32_t>{1, 2});
      },
      ErrorKind::kInvalidArgument, {"loss_scale: one exponent per parameter (3) is needed; got 2"}));
}

/// Sums of gradients times 2^s under limits s higher are the same integers, and come back as 2^s times the same
/// numbers.
TEST(LossScale, SumsOfScaledGradientsAreTheSameIntegers) {
  const int64_t n = 1000, g = 8;
  const auto gradient = testing::random_tensor(DType::kF32, {n}, 1, 0x1p-20);
  const Context context = testing::cpu_context();
  const std::vector<int32_t> limit{-14};
  std::vector<testing::OwnedTensor> sums, values;
  for (const int32_t s : {0, 9, 24, -10}) {
    LossScale scale(LossScaleConfig{s, 1}, 1);
    auto scaled = testing::values_of(gradient);
    for (double& x : scaled) x *= static_cast<double>(scale.value());
    const OrderFreeScale place = OrderFreeScale::make(scale.limits(limit)[0], g);
    testing::OwnedTensor range = testing::make_tensor(DType::kI32, {1}, {0}), value(DType::kF32, {n});
    sums.emplace_back(DType::kI64, Shape{n});
    const auto place_tensor =
        testing::make_tensor(DType::kI32, {2}, {static_cast<double>(place.exponent), static_cast<double>(place.shift)});
    order_free_add(context, place_tensor, testing::make_tensor(DType::kF32, {n}, scaled), sums.back(),
                   GradMode::kOverwrite, range);
    order_free_value(context, place, sums.back(), value);
    for (int64_t i = 0; i < n; ++i) value.view().data<float>()[i] *= scale.inverse();
    values.push_back(value);
    EXPECT_TRUE(testing::same_bits(sums.back(), sums[0])) << s;
    EXPECT_TRUE(testing::same_bits(values.back(), values[0])) << s;
    const std::vector<int32_t> measured{GradientRange{range.view().data<int32_t>()[0]}.exponent()};
    EXPECT_EQ(scale.exponents(measured)[0], -18) << "some deviations of 2^-20";
  }
}

TEST(LossScale, ContinuesFromACheckpoint) {
  LossScale first(LossScaleConfig{5, 4}, 0), second(LossScaleConfig{5, 4}, 0);
  EXPECT_TRUE(first.again(kOverflowed));
  first.accept();
  second.restore(first.position());
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(second.position(), first.position());
    first.accept(), second.accept();
  }
}

TEST(LossScale, Errors) {
  const auto refuses = [](LossScaleConfig config, const std::string& part) {
    EXPECT_TRUE(throws_error([&] { LossScale(config, 0); }, ErrorKind::kConfig, {part}));
  };
  refuses({25, 1}, "loss_scale: the initial scale must be 2^-10..2^24; got 2^25");
  refuses({-11, 1}, "got 2^-11");
  refuses({0, 0}, "loss_scale: growth_steps must be 1 and up; got 0");
  LossScale scale(LossScaleConfig{0, 10}, 0);
  const auto refuses_position = [&](std::optional<LossScale::Position> position, const std::string& part) {
    EXPECT_TRUE(throws_error([&] { scale.restore(position); }, ErrorKind::kWeights, {part}));
  };
  refuses_position(std::nullopt, "resume: a checkpoint of f16 compute must have its loss scale; got none");
  refuses_position({{25, 0}}, "resume: the loss scale must be 2^-10..2^24, 0..9 steps old; got 2^25, 0 steps old");
  refuses_position({{3, 10}}, "got 2^3, 10 steps old");
}

}  // namespace
}  // namespace permafrost
