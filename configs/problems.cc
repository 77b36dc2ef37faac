#include "configs/problems.h"

namespace permafrost::config {

void Problems::throw_if_any(const std::string& source) const {
  if (lines_.empty()) return;
  std::string message =
      concat("config: ", source, " has ", lines_.size(), lines_.size() == 1 ? " problem" : " problems");
  for (const std::string& line : lines_) message += "\n  " + line;
  fail(ErrorKind::kConfig, message);
}

}  // namespace permafrost::config
