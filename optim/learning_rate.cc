#include "optim/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/check.h"

namespace permafrost {

namespace {

double cosine(double from, double to, double progress) {
  return to + 0.5 * (from - to) * (1.0 + std::cos(std::numbers::pi * std::clamp(progress, 0.0, 1.0)));
}

double published(const ScheduleConfig& c, int64_t epoch, int64_t iteration) {
  if (epoch > 0) return cosine(c.peak_lr, c.min_lr, static_cast<double>(epoch) / static_cast<double>(c.epochs));
  const int64_t plateau = iteration == 0 ? 0 : std::min<int64_t>(4, (iteration - 1) / c.plateau_steps);
  return c.warmup_lr + static_cast<double>(plateau) * (c.peak_lr - c.warmup_lr) / 4.0;
}

}  // namespace

double schedule_factor(const ScheduleConfig& c, int64_t step, int64_t epoch, int64_t step_in_epoch) {
  PERMAFROST_CHECK(c.peak_lr > 0, "schedule_factor: peak_lr must be positive; got ", c.peak_lr);
  if (c.kind == ScheduleKind::kPublished) return published(c, epoch, step_in_epoch) / c.peak_lr;
  if (step < c.warmup_steps) {
    const double progress = static_cast<double>(step) / static_cast<double>(c.warmup_steps);
    return (c.warmup_lr + (c.peak_lr - c.warmup_lr) * progress) / c.peak_lr;
  }
  if (c.kind == ScheduleKind::kConstant) return 1.0;
  const int64_t length = std::max<int64_t>(1, c.max_steps - c.warmup_steps);
  return cosine(c.peak_lr, c.min_lr, static_cast<double>(step - c.warmup_steps) / static_cast<double>(length)) /
         c.peak_lr;
}

}  // namespace permafrost
