#pragma once
#include <sstream>
#include <string>

#include "core/base/error.h"

namespace permafrost {

/// Joins anything that can be streamed: concat("rank ", 3) == "rank 3".
template <typename... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

/// Throws Error(kind) with the joined arguments as message.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, const Args&... args) {
  throw Error(kind, concat(args...));
}

}  // namespace permafrost

/// Active in every build type; the arguments after the condition form the message and are evaluated only on failure.
/// For contracts between pieces of code. Bad user input uses fail(ErrorKind::kConfig, ...) and its siblings.
#define PERMAFROST_CHECK(condition, ...)                                                          \
  do {                                                                                            \
    if (!(condition)) ::permafrost::fail(::permafrost::ErrorKind::kInvalidArgument, __VA_ARGS__); \
  } while (false)
