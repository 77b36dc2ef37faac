#pragma once
#include <iterator>
#include <set>
#include <utility>
#include <vector>

#include "parallel/plan/program.h"

namespace permafrost::testing {

/// Steps [first, end) of a program between the points where a gather is waited for or a slot is given back, where they
/// are more than one.
inline std::vector<std::pair<int, int>> long_stretches(const Program& program) {
  std::set<int> cuts{0, static_cast<int>(program.steps.size())};
  for (const Gather& gather : program.gathers) {
    cuts.insert(gather.first_use);
    cuts.insert(gather.last_use + 1);
  }
  std::vector<std::pair<int, int>> stretches;
  for (auto at = cuts.begin(); std::next(at) != cuts.end(); ++at)
    if (*std::next(at) - *at > 1) stretches.emplace_back(*at, *std::next(at));
  return stretches;
}

}  // namespace permafrost::testing
