#include "core/graph/freezing.h"

#include <fnmatch.h>

#include <algorithm>

namespace permafrost {

bool name_matches(std::string_view pattern, std::string_view name) {
  return fnmatch(std::string(pattern).c_str(), std::string(name).c_str(), 0) == 0;
}

namespace {
/// A few parameter names, evenly spread, so that the reader of the message sees how names look.
std::string some_names(const Graph& graph) {
  std::string text;
  const size_t count = graph.params().size(), step = std::max<size_t>(1, count / 5);
  for (size_t i = 0; i < count; i += step) text += (text.empty() ? "" : ", ") + graph.params()[i].name;
  return text;
}
}  // namespace

std::vector<bool> resolve_freezing(const Graph& graph, const std::vector<FreezeRule>& rules, bool allow_all_frozen) {
  std::vector<bool> trainable(graph.params().size(), false), rule_used(rules.size(), false);
  for (size_t p = 0; p < trainable.size(); ++p) {
    bool decided = false;
    for (size_t r = 0; r < rules.size(); ++r) {
      if (!name_matches(rules[r].pattern, graph.params()[p].name)) continue;
      rule_used[r] = true;
      if (!decided) trainable[p] = rules[r].trainable;
      decided = true;
    }
  }
  std::string unused;
  for (size_t r = 0; r < rules.size(); ++r)
    if (!rule_used[r]) unused += (unused.empty() ? "'" : ", '") + rules[r].pattern + "'";
  if (!unused.empty())
    fail(ErrorKind::kConfig, "freeze: every pattern must match a parameter; got ", unused, ", which match none of the ",
         trainable.size(), " parameters (names look like: ", some_names(graph), ")");
  if (!allow_all_frozen && std::ranges::none_of(trainable, [](bool t) { return t; }))
    fail(ErrorKind::kConfig, "freeze: at least one parameter must be trainable; got ", rules.size(),
         " rules that leave all ", trainable.size(), " parameters frozen");
  return trainable;
}

}  // namespace permafrost
