#pragma once
#include <string_view>

namespace permafrost {

/// "two" to "2", of none, zero and one to ten; other words stay.
std::string_view vqa_number(std::string_view word);
/// "dont" to "don't"; other words stay.
std::string_view vqa_contraction(std::string_view word);
bool is_vqa_article(std::string_view word);

}  // namespace permafrost
