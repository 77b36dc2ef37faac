#include "launch/training/name_patterns.h"

#include <algorithm>

#include "core/graph/freezing.h"
#include "models/factory.h"

namespace permafrost {

void check_name_patterns(const config::Config& config, config::Problems& problems) {
  constexpr int64_t kAnyBatch = 1, kAnyTokens = 8;  // names do not depend on shapes
  const Graph graph = [&] {
    try {
      return make_model(config)->build(DType::kF32, {kAnyBatch, kAnyTokens, false});
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kConfig) throw;
      problems.add("model", error.what());
      return Graph(DType::kF32);
    }
  }();
  if (graph.params().empty()) return;
  const auto check = [&](const std::string& path, const std::string& pattern) {
    if (pattern.empty()) return;  // a problem of its own
    if (std::ranges::any_of(graph.params(), [&](const ParamInfo& param) { return name_matches(pattern, param.name); }))
      return;
    const std::vector<ParamInfo>& params = graph.params();
    problems.expected(path,
                      concat("a pattern that matches a parameter (there are ", params.size(), ", such as ",
                             params.front().name, " and ", params.back().name, ")"),
                      concat("'", pattern, "', which matches none of them"));
  };
  for (int i = 0; i < config.freeze_size(); ++i) check(concat("freeze[", i, "].pattern"), config.freeze(i).pattern());
  for (int i = 0; i < config.optimizer().groups_size(); ++i)
    check(concat("optimizer.groups[", i, "].pattern"), config.optimizer().groups(i).pattern());
}

}  // namespace permafrost
