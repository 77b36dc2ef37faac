#pragma once
#include <string>
#include <vector>

#include "parallel/plan/program.h"

namespace permafrost {

struct ProgramReport {
  std::vector<std::string> problems;  ///< in words; empty means the program is right
  /// The largest sum of arena bytes that hold something still to be read (or kept to the end), found by the replay.
  int64_t peak_live_bytes = 0;
};

/// Replays a program symbolically, knowing only the graph, the needs, the addresses in the steps and what was asked for
/// (not the planner's lifetimes): every write puts a new content on its bytes, every read must find on all of its bytes
/// the content the graph says it should. Finds buffers that overlap while alive, reads before writes, gradients read
/// before all contributions arrived, contributions lost or never summed, tensors outside their region, wrong shapes,
/// workspaces and saved buffers other than their operation asks for, states overwritten too early, and values and
/// gradients that should have been kept but were not.
ProgramReport replay_program(const Graph& graph, const NeedAnalysis& needs, const Program& program,
                             const ProgramOptions& options);

/// The problems of `replay_program`.
std::vector<std::string> check_program(const Graph& graph, const NeedAnalysis& needs, const Program& program,
                                       const ProgramOptions& options);

}  // namespace permafrost
