#pragma once
#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost::config {

/// evaluation: decoding and batches. Its data are checked beside `data`.
void check_evaluation(const Config& config, Problems& problems);

}  // namespace permafrost::config
