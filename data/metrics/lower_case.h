#pragma once
#include <string>
#include <string_view>

namespace permafrost {

/// Unicode's simple small letter of one character (Basic Multilingual Plane).
char32_t lower_case(char32_t code_point);

/// The same of a text in UTF-8, U+0130 as two characters; bytes that are not UTF-8 stay. Java and Python also look at the
/// neighbours of a capital sigma, which this does not.
std::string lower_case(std::string_view text);

}  // namespace permafrost
