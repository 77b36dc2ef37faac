#pragma once
#include "core/base/json.h"
#include "launch/runtime.h"

namespace permafrost {

/// What figures were measured with, for their JSON lines: machine, versions, ranks. Null where unknown.
OrderedJson about_run(const Runtime& runtime);
/// Version of the oneDNN that this program is linked with, such as "2.6.0".
std::string onednn_version();

}  // namespace permafrost
