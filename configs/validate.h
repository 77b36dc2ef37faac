#pragma once
#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost::config {

/// Adds every value that is missing, out of range or at odds with another. Expects defaults filled and sizes expanded.
/// Looks at the configuration alone: whether files exist is for those who open them.
void validate(const Config& config, Problems& problems);

/// What only a run over data needs besides: where data and tokenizer are. `plan`, `probe` and `weights` do without.
/// Throw Error(kConfig) naming everything missing.
void require_data(const Config& config);             ///< `data`
void require_evaluation_data(const Config& config);  ///< evaluation.data
void require_tokenizer(const Config& config);        ///< of evaluation.data, whose samples are not looked at

}  // namespace permafrost::config
