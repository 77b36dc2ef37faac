#include "data/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

#include "core/base/check.h"
#include "core/base/handle.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {
namespace {

struct PcreCodeTraits {
  using Type = pcre2_code*;
  static Type null() { return nullptr; }
  static void close(Type code) noexcept { pcre2_code_free(code); }
};

struct PcreMatchTraits {
  using Type = pcre2_match_data*;
  static Type null() { return nullptr; }
  static void close(Type data) noexcept { pcre2_match_data_free(data); }
};

// PCRE2's own \s counts U+180E and leaves the choice of tables to the build: White_Space is spelt out instead.
constexpr char kSpace[] = R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string pattern() {
  const std::string space = kSpace;
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^)" + space + R"(\p{L}\p{N}]+|[)" + space + "]+(?![^" + space +
         "])|[" + space + "]+";
}

std::string message_of(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct PreTokenizer::Code {
  Handle<PcreCodeTraits> regex;

  void split_valid(std::string_view text, pcre2_match_data* match,
                   const std::function<void(std::string_view)>& piece) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    size_t position = 0;
    while (position < text.size()) {
      const int result = pcre2_match(regex.get(), subject, text.size(), position, PCRE2_NO_UTF_CHECK, match, nullptr);
      if (result < 0)  // every character belongs to one of the alternatives, so "no match" is a failure too
        fail(ErrorKind::kInternal, "pre_tokenizer: the expression must match at byte ", position, " of ", text.size(),
             "; got '", message_of(result), "'");
      const size_t* range = pcre2_get_ovector_pointer(match);
      PERMAFROST_CHECK(range[0] == position && range[1] > position, "pre_tokenizer: pieces must join; got a match at ",
                       range[0], "..", range[1], " for byte ", position);
      piece(text.substr(range[0], range[1] - range[0]));
      position = range[1];
    }
  }
};

PreTokenizer::PreTokenizer() : code_(std::make_unique<Code>()) {
  const std::string text = pattern();
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->regex = Handle<PcreCodeTraits>(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_UTF, &error, &offset, nullptr));
  if (!code_->regex)
    fail(ErrorKind::kInternal, "pre_tokenizer: PCRE2 must compile the expression; got '", message_of(error),
         "' at offset ", offset);
  pcre2_jit_compile(code_->regex.get(), PCRE2_JIT_COMPLETE);  // a PCRE2 built without JIT interprets instead
}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

void PreTokenizer::split(std::string_view text, const std::function<void(std::string_view)>& piece) const {
  const Handle<PcreMatchTraits> match(pcre2_match_data_create_from_pattern(code_->regex.get(), nullptr));
  if (!match) fail(ErrorKind::kInternal, "pre_tokenizer: PCRE2 could not allocate match data");
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
      code_->split_valid(run, match.get(), piece);
    } else {
      piece(run);
    }
  }
}

}  // namespace permafrost
