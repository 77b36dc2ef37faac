#pragma once
#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost::config {

/// Adds every value that is missing, out of range or at odds with another. Expects defaults filled and sizes expanded.
/// Looks at the configuration alone: whether files exist is for those who open them.
void validate(const Config& config, Problems& problems);

/// What only a run over data needs besides: where data and tokenizer are. `plan`, `probe` and `weights` do without.
/// Throws Error(kConfig) naming everything missing.
void require_data(const Config& config);

}  // namespace permafrost::config
