#pragma once
#include <string_view>

namespace permafrost {

/// Whether "word." is one token where a space, the end or another mark follows: "st.", "dr.", "etc.", a single letter.
bool is_ptb_abbreviation(std::string_view word);
/// Whether it is one only before a number: "no. 5", "fig. 2".
bool is_ptb_number_abbreviation(std::string_view word);
/// Words that begin a sentence so surely that a single letter and period before them are two tokens: "plan B. The ...".
/// `word` must begin with a capital.
bool is_ptb_sentence_start(std::string_view word);
/// Where a word that is two tokens parts: 3 for "cannot"; 0 for all others.
size_t ptb_split(std::string_view word);

}  // namespace permafrost
