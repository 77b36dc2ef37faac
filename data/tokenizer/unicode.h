#pragma once
#include <array>
#include <string_view>
#include <vector>

#include "core/base/utf8.h"

namespace permafrost {

/// What Python's str.isspace() calls white space.
bool is_python_space(char32_t code_point);

/// Python's str.lstrip(), rstrip() and strip() without arguments.
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
inline std::string_view strip(std::string_view text) { return strip_left(strip_right(text)); }
/// Words as Python's str.split() without arguments gives them.
std::vector<std::string_view> python_words(std::string_view text);

/// How GPT-2 writes bytes as printable characters: 33..126, 161..172 and 174..255 as themselves, the other 68, in
/// order, as U+0100 onwards.
std::array<char32_t, 256> gpt2_characters();

}  // namespace permafrost
