#pragma once
#include <cstdint>

namespace permafrost {

enum class ScheduleKind : uint8_t {
  kPublished,  ///< four plateaus of warm-up in epoch 0, then one cosine value per epoch
  kCosine,     ///< linear warm-up, cosine down to min_lr at max_steps
  kConstant,   ///< linear warm-up, then the peak
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kPublished;
  double peak_lr = 0;
  double warmup_lr = 0, min_lr = 0;
  int64_t warmup_steps = 0;     ///< kCosine, kConstant
  int64_t epochs = 1;           ///< kPublished: length of the cosine
  int64_t plateau_steps = 100;  ///< kPublished
  int64_t max_steps = 1;        ///< kCosine
};

/// Factor on a group's learning rate for the update of `step` (from 0) in `epoch` (from 0), `step_in_epoch` its
/// position there: learning rate of the schedule divided by peak_lr. A pure function, so resuming needs no state.
/// kPublished follows the released eP-ALM scripts: a value is set *after* the update of iterations 0, 100, 200, 300,
/// 400 of epoch 0, so iteration i runs with plateau min(4, (i - 1) / 100), iteration 0 with the first.
double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t epoch, int64_t step_in_epoch);

}  // namespace permafrost
