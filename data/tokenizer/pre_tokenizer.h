#pragma once
#include <functional>
#include <memory>
#include <string_view>

namespace permafrost {

/// Cuts text into the pieces inside which byte pairs may merge: GPT-2's regular expression
///   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// where \s is Unicode White_Space, as in Python's `regex` module. Letters and digits are those of the installed
/// PCRE2's Unicode version (10.42: Unicode 14). Bytes that are not UTF-8 end a piece and form pieces of their own.
/// The pieces in order, joined, are the text. Thread-safe.
class PreTokenizer {
 public:
  PreTokenizer();
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  void split(std::string_view text, const std::function<void(std::string_view)>& piece) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace permafrost
