#pragma once
#include <string>
#include <vector>

#include "core/graph/graph.h"

namespace permafrost {

/// "This name pattern is trainable / frozen." Patterns are shell globs over full parameter names: `*` any characters,
/// `?` one, `[abc]` a set. The first rule that matches a name decides; a parameter no rule matches is frozen.
struct FreezeRule {
  std::string pattern;
  bool trainable = false;
};

/// Per parameter of the graph: trainable? Throws ConfigError when a rule matches no parameter (it names the rule and
/// a few names that come close) or when nothing at all is trainable and `allow_all_frozen` is false.
std::vector<bool> resolve_freezing(const Graph& graph, const std::vector<FreezeRule>& rules,
                                   bool allow_all_frozen = false);

/// Glob match as described at FreezeRule.
bool name_matches(std::string_view pattern, std::string_view name);

}  // namespace permafrost
