#pragma once
#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost {

/// Adds every pattern of `freeze` and of `optimizer.groups` that matches no parameter of the model. The model section
/// must be valid.
void check_name_patterns(const config::Config& config, config::Problems& problems);

}  // namespace permafrost
