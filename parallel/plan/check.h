#pragma once
#include <string>
#include <vector>

#include "parallel/plan/program.h"

namespace permafrost {

/// Replays a program symbolically, knowing only the graph, the needs and the addresses in the steps (not the planner's
/// lifetimes): every write puts a new content on its bytes, every read must find on all of its bytes the content the
/// graph says it should. Finds buffers that overlap while alive, reads before writes, gradients read before all
/// contributions arrived, contributions lost, tensors outside their region, wrong shapes. Returns the problems found,
/// in words; empty means the program is right.
std::vector<std::string> check_program(const Graph& graph, const NeedAnalysis& needs, const Program& program);

}  // namespace permafrost
