#include "data/tokenizer/pre_tokenizer.h"

#include <string>

#include "core/base/check.h"
#include "data/tokenizer/pcre.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {
namespace {

constexpr const char* kPreTokenizer = "pre_tokenizer";

// PCRE2's own \s counts U+180E and leaves the choice of tables to the build: White_Space is spelt out instead.
constexpr char kSpace[] = R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string pattern() {
  const std::string space = kSpace;
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^)" + space + R"(\p{L}\p{N}]+|[)" + space + "]+(?![^" + space +
         "])|[" + space + "]+";
}

}  // namespace

struct PreTokenizer::Code {
  PcreCode regex = compile_pcre(pattern(), 0, kPreTokenizer);

  void split_valid(std::string_view text, const PcreMatch& match,
                   const std::function<void(std::string_view)>& piece) const {
    size_t position = 0;
    while (position < text.size()) {
      if (search_pcre(regex, text, position, match, kPreTokenizer) == 0)  // each character belongs to an alternative
        fail(ErrorKind::kInternal, kPreTokenizer, ": the expression must match at byte ", position, " of ", text.size(),
             "; got no match");
      const size_t* range = pcre2_get_ovector_pointer(match.get());
      PERMAFROST_CHECK(range[0] == position && range[1] > position, kPreTokenizer,
                       ": pieces must join; got a match at ", range[0], "..", range[1], " for byte ", position);
      piece(text.substr(range[0], range[1] - range[0]));
      position = range[1];
    }
  }
};

PreTokenizer::PreTokenizer() : code_(std::make_unique<Code>()) {}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

void PreTokenizer::split(std::string_view text, const std::function<void(std::string_view)>& piece) const {
  const PcreMatch match = make_pcre_match(0, kPreTokenizer);
  size_t position = 0;
  while (position < text.size()) {  // runs of valid and of invalid UTF-8 in turn
    const size_t start = position;
    const bool valid = next_utf8(text, position).valid;
    while (position < text.size()) {
      const Utf8Step step = next_utf8(text, position);
      if (step.valid != valid) break;
      position += step.bytes;
    }
    const std::string_view run = text.substr(start, position - start);
    if (valid) {
      code_->split_valid(run, match, piece);
    } else {
      piece(run);
    }
  }
}

}  // namespace permafrost
