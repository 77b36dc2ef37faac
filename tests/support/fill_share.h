#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "parallel/run/step_memory.h"

namespace permafrost::testing {

/// Writes initial values into what a rank's host has: of a frozen unit that is not whole there, this rank's part.
inline void fill_share(const Plan& plan, const StepMemory& memory) {
  for (const ParamPlan& param : plan.params) {
    std::vector<std::byte> whole(static_cast<size_t>(param.placement.stored.bytes()));
    fill(param.initializer, 7, param.name, param.placement.stored.dtype, 0, whole);
    if (param.trainable || memory.layout.whole(static_cast<size_t>(param.unit))) {
      std::memcpy(memory.host_param(param).raw(), whole.data(), whole.size());
      continue;
    }
    for (const FrozenRange& range : memory.frozen_share()) {
      const int64_t begin = std::max(range.begin, param.placement.offset),
                    end = std::min(range.end, param.placement.offset + std::ssize(whole));
      if (begin >= end) continue;
      std::memcpy(range.data + (begin - range.begin), whole.data() + (begin - param.placement.offset),
                  static_cast<size_t>(end - begin));
    }
  }
}

}  // namespace permafrost::testing
