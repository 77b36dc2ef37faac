#pragma once
#include "core/base/json.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// What Plan::json prints, for those who add to it.
OrderedJson plan_json(const Plan& plan);

}  // namespace permafrost
