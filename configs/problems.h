#pragma once
#include <string>
#include <vector>

#include "core/base/check.h"

namespace permafrost::config {

/// Collects what is wrong with a configuration, so that all of it is reported at once.
class Problems {
 public:
  /// where: a field path ("train.micro_batch"), a line of a file, or an override.
  void add(const std::string& where, const std::string& message) { lines_.push_back(where + ": " + message); }
  /// "train.micro_batch: expected 1 to 65536; got 0"
  template <typename Expected, typename Got>
  void expected(const std::string& where, const Expected& expected, const Got& got) {
    add(where, concat("expected ", expected, "; got ", got));
  }

  bool empty() const { return lines_.empty(); }
  const std::vector<std::string>& lines() const { return lines_; }
  /// Throws Error(kConfig) with every problem on a line of its own, when there is one. `source` says what was read.
  void throw_if_any(const std::string& source) const;

 private:
  std::vector<std::string> lines_;
};

}  // namespace permafrost::config
