#pragma once
#include <string>
#include <vector>

#include "core/base/check.h"

namespace permafrost {

/// Everything wrong with a set of weights, thrown together: whoever repairs a file wants to see all of it at once.
class ProblemList {
 public:
  template <typename... Args>
  void add(const Args&... args) {
    lines_.push_back(concat(args...));
  }

  /// Throws kWeights "<heading>: N problems" and one line for each, when there is any.
  void throw_if_any(const std::string& heading) const {
    if (lines_.empty()) return;
    std::string text = concat(heading, ": ", lines_.size(), lines_.size() == 1 ? " problem" : " problems");
    for (const std::string& line : lines_) text += "\n  " + line;
    fail(ErrorKind::kWeights, text);
  }

 private:
  std::vector<std::string> lines_;
};

}  // namespace permafrost
