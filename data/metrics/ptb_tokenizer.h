#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace permafrost {

/// Tokens of captions as the COCO caption tools make them: Penn Treebank tokens, lower case, without punctuation. The
/// published scores stand on Stanford CoreNLP 3.4.1's `PTBTokenizer -preserveLines -lowerCase`, one caption a line,
/// from whose output the tools drop the tokens '' ' `` ` . ? ! , : - -- ... ; (brackets stay, as "-lrb-": the tools'
/// list has them in upper case only). This class is written anew from what that program prints; docs/notes/metrics.md
/// says how it was compared and what differs.
///
/// A caption's tokens depend on its neighbours in one case: "gate B." at the end of a line keeps its period unless the
/// next line begins with a word such as "A" or "The". So the order of the lines is part of the definition.
class PtbTokenizer {
 public:
  PtbTokenizer();
  ~PtbTokenizer();
  PtbTokenizer(const PtbTokenizer&) = delete;
  PtbTokenizer& operator=(const PtbTokenizer&) = delete;

  /// One string a line, its tokens joined by single spaces; empty where nothing is left. A token made of several words
  /// ("22 3/4", phone numbers) holds U+00A0, at which BLEU and CIDEr split it again and ROUGE-L does not. Line breaks
  /// inside a caption count as spaces; bytes that are not UTF-8 are dropped, and what they separate stays apart.
  /// Safe to call from several threads.
  std::vector<std::string> tokenize(std::span<const std::string> lines) const;

 private:
  class Rules;
  std::unique_ptr<const Rules> rules_;
};

}  // namespace permafrost
