#pragma once
#include <cstdint>
#include <utility>

#include "core/base/check.h"

namespace permafrost {

/// Integer conversion that throws instead of losing value.
template <typename To, typename From>
To narrow(From value) {
  if (!std::in_range<To>(value)) fail(ErrorKind::kInvalidArgument, "narrow: ", value, " does not fit the target type");
  return static_cast<To>(value);
}

/// a / b where a remainder would be a bug.
inline int64_t div_exact(int64_t a, int64_t b) {
  if (b <= 0 || a % b != 0) fail(ErrorKind::kInvalidArgument, "div_exact: ", a, " is not a multiple of ", b);
  return a / b;
}

inline constexpr int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline constexpr int64_t round_up(int64_t a, int64_t b) { return div_up(a, b) * b; }

}  // namespace permafrost
