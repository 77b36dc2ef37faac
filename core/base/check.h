#pragma once
#include <concepts>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>

#include "core/base/error.h"

namespace permafrost {

namespace join {

// Texts and numbers, which nearly all parts are, without a stream: messages are made in thousands of places.
void append(std::string& out, std::string_view text);
void append(std::string& out, long long number);
void append(std::string& out, unsigned long long number);
void append(std::string& out, double number);  ///< six digits, as streams print it

template <typename T>
void append_part(std::string& out, const T& part) {
  static_assert(!std::is_function_v<T>, "a manipulator such as std::hex would change no other part");
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    append(out, std::string_view(part));
  } else if constexpr (std::is_same_v<T, char>) {
    out.push_back(part);
  } else if constexpr (std::integral<T> && !std::is_same_v<T, signed char> && !std::is_same_v<T, unsigned char>) {
    if constexpr (std::is_signed_v<T>)
      append(out, static_cast<long long>(part));
    else
      append(out, static_cast<unsigned long long>(part));
  } else if constexpr (std::is_same_v<T, double> || std::is_same_v<T, float>) {
    append(out, static_cast<double>(part));
  } else {
    std::ostringstream stream;
    stream << part;
    append(out, stream.view());
  }
}

}  // namespace join

/// Joins anything that can be streamed, each part as a new stream prints it: concat("rank ", 3) == "rank 3".
template <typename... Args>
std::string concat(const Args&... args) {
  std::string out;
  (join::append_part(out, args), ...);
  return out;
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
