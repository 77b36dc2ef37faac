#pragma once
#include <span>

namespace permafrost {

/// What happens to the text that a rule takes.
enum class Take {
  kToken,               ///< one token as it stands
  kWord,                ///< the same, unless it is one of the words that part ("can not")
  kDrop,                ///< nothing: white space, punctuation
  kAbbreviation,        ///< a token if the letters before the period (group 1) are an abbreviation; no match otherwise
  kInitial,             ///< a letter, its period left alone, if the word behind (group 2) begins a sentence
  kNumberAbbreviation,  ///< as kAbbreviation, for the words that are one before a number
};

/// At each place the rule with the longest match wins, the first of equals. The token is group 1 (the whole match where
/// there is none): what is looked at behind it counts for the length.
struct PtbRule {
  Take take;
  const char* pattern;
};
std::span<const PtbRule> ptb_rules();

}  // namespace permafrost
