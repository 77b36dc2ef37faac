#pragma once
#include "configs/config.pb.h"

namespace permafrost::config {

/// Completes what describes data by what it does not say: evaluation.data by `data`, and the entries of a mix by the
/// fields around them. Before defaults are filled in, since a default would look like something said.
void inherit_data(Config& config);

}  // namespace permafrost::config
