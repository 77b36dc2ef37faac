#pragma once
#include <span>
#include <string_view>

#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost::config {

/// Fields of Data that say where samples are, which an entry of a mix may say for itself.
std::span<const std::string_view> source_fields();

/// Completes what describes data by what it does not say: evaluation.data by `data`, and the entries of a mix by the
/// fields around them. Before defaults are filled in, since a default would look like something said.
/// Notes fields of evaluation.data that would mean nothing, since entries of the mix it inherits give them too.
void inherit_data(Config& config, Problems& problems);

}  // namespace permafrost::config
