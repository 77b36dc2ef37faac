#pragma once
#include "parallel/plan/program.h"

namespace permafrost {

/// Gives every buffer an offset such that buffers alive at the same step never overlap; returns the arena size.
/// Tries several greedy orders and keeps the smallest arena. `reuse` false places them one after another.
int64_t layout_arena(std::vector<PlannedBuffer>& buffers, bool reuse);

/// The largest sum of bytes alive at one step.
int64_t peak_live_bytes(const std::vector<PlannedBuffer>& buffers);

}  // namespace permafrost
