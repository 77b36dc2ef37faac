#pragma once
#include "core/base/json.h"
#include "launch/runtime.h"

namespace permafrost {

/// What figures were measured with, for their JSON lines: machine, versions, ranks. Null where unknown.
OrderedJson about_run(const Runtime& runtime);

}  // namespace permafrost
