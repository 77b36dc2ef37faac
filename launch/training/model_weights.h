#pragma once
#include <string>
#include <vector>

#include "configs/config.pb.h"
#include "core/device/thread_pool.h"
#include "optim/sharded_adamw.h"
#include "parallel/plan/plan.h"
#include "parallel/run/step_memory.h"

namespace permafrost {

/// What was loaded, for the log: a line per part ("vision: 152 tensors from PATH, ..." or "text: RANDOM weights ...").
struct LoadedWeights {
  std::vector<std::string> lines;
};

/// Fills frozen parameters (converted to their storage dtype) and this rank's masters from weights.vision, weights.text
/// and weights.adapter, in that order; a part without a file gets seeded random values and says so. Working copies are
/// not touched. Errors: kWeights, kStorage.
LoadedWeights load_model_weights(const config::Config& config, const Plan& plan, const StepMemory& memory,
                                 ShardedAdamw& optimizer);

/// SHA-256 over all frozen parameters as stored, in plan order.
std::string hash_frozen(const Plan& plan, const StepMemory& memory, ThreadPool& pool);

}  // namespace permafrost
