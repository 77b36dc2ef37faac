#pragma once
#include <string>
#include <vector>

#include "core/base/check.h"

namespace permafrost {

/// Everything wrong with a set of weights, thrown together: whoever repairs a file wants to see all of it at once.
class ProblemList {
 public:
  static constexpr size_t kShown = 20;

  template <typename... Args>
  void add(const Args&... args) {
    if (count_++ < kShown) lines_.push_back(concat(args...));
  }
  size_t count() const { return count_; }

  /// Throws kWeights "<heading>: N problems" and one line for each of the first 20, when there is any.
  void throw_if_any(const std::string& heading) const {
    if (count_ == 0) return;
    std::string text = concat(heading, ": ", count_, count_ == 1 ? " problem" : " problems");
    for (const std::string& line : lines_) text += "\n  " + line;
    if (count_ > kShown) text += concat("\n  ... and ", count_ - kShown, " more");
    fail(ErrorKind::kWeights, text);
  }

 private:
  size_t count_ = 0;
  std::vector<std::string> lines_;
};

}  // namespace permafrost
