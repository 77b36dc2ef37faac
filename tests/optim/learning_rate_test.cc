#include "optim/learning_rate.h"

#include <gtest/gtest.h>

namespace permafrost {
namespace {

ScheduleConfig published() {
  ScheduleConfig c;
  c.kind = ScheduleKind::kPublished;
  c.peak_lr = 2e-5;
  c.warmup_lr = 1e-5;
  c.min_lr = 1e-6;
  c.epochs = 8;
  return c;
}

double lr(const ScheduleConfig& c, int64_t step, int64_t epoch = 0, int64_t in_epoch = 0) {
  return c.peak_lr * schedule_factor(c, step, epoch, in_epoch);
}

TEST(LearningRate, PublishedWarmUpHasFourPlateaus) {
  // Set after the update of iterations 0, 100, 200, 300, 400: the value holds from the next iteration on.
  const ScheduleConfig c = published();
  EXPECT_DOUBLE_EQ(lr(c, 0, 0, 0), 1e-5);
  EXPECT_DOUBLE_EQ(lr(c, 100, 0, 100), 1e-5);
  EXPECT_DOUBLE_EQ(lr(c, 101, 0, 101), 1.25e-5);
  EXPECT_DOUBLE_EQ(lr(c, 200, 0, 200), 1.25e-5);
  EXPECT_DOUBLE_EQ(lr(c, 201, 0, 201), 1.5e-5);
  EXPECT_DOUBLE_EQ(lr(c, 400, 0, 400), 1.75e-5);
  EXPECT_DOUBLE_EQ(lr(c, 401, 0, 401), 2e-5);
  EXPECT_DOUBLE_EQ(lr(c, 5000, 0, 5000), 2e-5);
}

TEST(LearningRate, PublishedCosineIsConstantWithinAnEpoch) {
  const ScheduleConfig c = published();
  EXPECT_DOUBLE_EQ(lr(c, 6000, 1, 3), lr(c, 7000, 1, 900));
  EXPECT_NEAR(lr(c, 0, 4, 0), 1e-6 + 0.5 * 1.9e-5, 1e-18);  // half of the epochs: half of the fall
  EXPECT_NEAR(lr(c, 0, 8, 0), 1e-6, 1e-18);
}

TEST(LearningRate, CosineWarmsUpLinearlyAndEndsAtTheMinimum) {
  ScheduleConfig c = published();
  c.kind = ScheduleKind::kCosine;
  c.warmup_steps = 10;
  c.max_steps = 110;
  EXPECT_DOUBLE_EQ(lr(c, 0), 1e-5);
  EXPECT_DOUBLE_EQ(lr(c, 5), 1.5e-5);
  EXPECT_DOUBLE_EQ(lr(c, 10), 2e-5);
  EXPECT_NEAR(lr(c, 60), 1e-6 + 0.5 * 1.9e-5, 1e-18);
  EXPECT_NEAR(lr(c, 110), 1e-6, 1e-18);
  EXPECT_NEAR(lr(c, 500), 1e-6, 1e-18);
}

TEST(LearningRate, ConstantStaysAfterWarmUp) {
  ScheduleConfig c = published();
  c.kind = ScheduleKind::kConstant;
  EXPECT_DOUBLE_EQ(lr(c, 0), 2e-5);
  c.warmup_steps = 4;
  EXPECT_DOUBLE_EQ(lr(c, 0), 1e-5);
  EXPECT_DOUBLE_EQ(lr(c, 4), 2e-5);
  EXPECT_DOUBLE_EQ(lr(c, 400000), 2e-5);
}

}  // namespace
}  // namespace permafrost
