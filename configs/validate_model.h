#pragma once
#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost::config {

/// Adds what is wrong with `model`, and with what other sections say that does not fit its kind.
void check_model(const Config& config, Problems& problems);

/// Adds what is wrong with `validation`, and whether its metric does not fit model and data.
void check_validation(const Config& config, Problems& problems);

}  // namespace permafrost::config
