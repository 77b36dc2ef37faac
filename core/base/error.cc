#include "core/base/error.h"

#include <cstdio>

#include "core/base/check.h"
#include "core/base/utf8.h"

namespace permafrost {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidArgument:
      return "invalid argument";
    case ErrorKind::kShapeMismatch:
      return "shape mismatch";
    case ErrorKind::kConfig:
      return "config";
    case ErrorKind::kWeights:
      return "weights";
    case ErrorKind::kData:
      return "data";
    case ErrorKind::kStorage:
      return "storage";
    case ErrorKind::kNonFinite:
      return "non-finite";
    case ErrorKind::kPeer:
      return "peer";
    case ErrorKind::kTimeout:
      return "timeout";
    case ErrorKind::kNotBuilt:
      return "not built";
    case ErrorKind::kStopped:
      return "stopped";
    case ErrorKind::kInternal:
      return "internal";
  }
  return "unknown";
}

Error::Error(ErrorKind kind, const std::string& message)
    : std::runtime_error(printable(message, Lines::kSeveral)), kind_(kind) {}

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kConfig:
      return 2;
    case ErrorKind::kWeights:
    case ErrorKind::kData:
      return 3;
    case ErrorKind::kStorage:
      return 4;
    case ErrorKind::kNonFinite:
      return 5;
    case ErrorKind::kPeer:
    case ErrorKind::kTimeout:
      return 6;
    case ErrorKind::kNotBuilt:
      return 7;
    case ErrorKind::kStopped:
      return 8;
    case ErrorKind::kInvalidArgument:
    case ErrorKind::kShapeMismatch:
    case ErrorKind::kInternal:
      return 70;
  }
  return 70;
}

namespace join {

void append(std::string& out, std::string_view text) { out.append(text); }
void append(std::string& out, long long number) { out.append(std::to_string(number)); }
void append(std::string& out, unsigned long long number) { out.append(std::to_string(number)); }
void append(std::string& out, double number) {
  char text[32];
  const int length = std::snprintf(text, sizeof(text), "%g", number);
  out.append(text, static_cast<size_t>(length));
}

}  // namespace join

}  // namespace permafrost
