#pragma once
#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost::config {

/// Notes what is wrong with `data`, and with evaluation.data where that is something else.
void check_data(const Config& config, Problems& problems);

}  // namespace permafrost::config
