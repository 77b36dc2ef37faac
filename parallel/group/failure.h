#pragma once
#include <string>

#include "core/base/check.h"

namespace permafrost {

/// Who brought the world down, and why.
struct Failure {
  int rank = -1;
  int size = 0;
  ErrorKind kind = ErrorKind::kInternal;
  std::string reason;

  /// What other ranks throw: the failing rank's kind, so that every rank ends with the same exit code.
  Error error() const { return Error(kind, concat("rank ", rank, "/", size, " failed: ", reason)); }
};

}  // namespace permafrost
