#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace permafrost {

/// One step through bytes that may or may not be UTF-8.
struct Utf8Step {
  char32_t code_point = 0;  ///< meaningful when valid
  size_t bytes = 0;         ///< >= 1; for an invalid start: the maximal ill-formed part, as Unicode and Python count it
  bool valid = false;
};

/// Decodes at `position` < text.size(). Surrogates, overlong forms and values above U+10FFFF are invalid.
Utf8Step next_utf8(std::string_view text, size_t position);

void append_utf8(std::string& text, char32_t code_point);

/// Every maximal ill-formed part becomes U+FFFD: Python's bytes.decode("utf-8", errors="replace").
std::string replace_invalid_utf8(std::string_view bytes);

enum class Lines : uint8_t { kOne, kSeveral };

/// Text of unknown origin for a terminal or a log: control characters, and bytes that are not UTF-8, become \x1b and
/// the like. With kSeveral, line breaks and tabs stay.
std::string printable(std::string_view text, Lines lines = Lines::kOne);

}  // namespace permafrost
