#pragma once
#include <string>
#include <string_view>

namespace permafrost {

/// Unicode's simple lower case of one character (Basic Multilingual Plane).
char32_t lower_case(char32_t code_point);

/// The same of a text in UTF-8; bytes that are not UTF-8 stay. Differs from Java's and Python's only where these write
/// several characters for one (U+0130) or look at the neighbours (a final capital sigma).
std::string lower_case(std::string_view text);

}  // namespace permafrost
