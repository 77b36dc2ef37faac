#pragma once
#include "configs/config.pb.h"
#include "optim/learning_rate.h"
#include "optim/parameter_groups.h"

namespace permafrost {

/// Optimizer settings of a validated configuration. With quirks.prompt_lr_ignored the published captioning groups
/// replace optimizer.groups, which become lost_groups: vectors without decay on the schedule, matrices with decay at a
/// constant rate.
AdamwConfig make_adamw_config(const config::Config& config);
ScheduleConfig make_schedule_config(const config::Config& config);

}  // namespace permafrost
