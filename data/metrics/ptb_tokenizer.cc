#include "data/metrics/ptb_tokenizer.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include "core/base/check.h"
#include "data/metrics/lower_case.h"
#include "data/metrics/ptb_rules.h"
#include "data/metrics/ptb_words.h"
#include "data/tokenizer/pcre.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {

namespace {

constexpr const char* kPtbTokenizer = "ptb tokenizer";  // who says what is wrong

/// How marks are printed.
constexpr std::pair<std::string_view, std::string_view> kPrinted[] = {
    {"(", "-lrb-"},    {")", "-rrb-"},      {"[", "-lsb-"},    {"]", "-rsb-"},    {"{", "-lcb-"},
    {"}", "-rcb-"},    {"&amp;", "&"},      {"&lt;", "<"},     {"&gt;", ">"},     {"&quot;", "\""},
    {"&apos;", "'"},   {"\u00a2", "cents"}, {"\u00a3", "#"},   {"\u00a4", "$"},   {"\u20ac", "$"},
    {"\u00bc", "1/4"}, {"\u00bd", "1/2"},   {"\u00be", "3/4"}, {"\u2153", "1/3"}, {"\u2154", "2/3"}};

void add_token(std::string& line, std::string_view token) {
  if (!line.empty()) line += ' ';
  line += token;
}

void add_printed(std::string& line, std::string_view token) {
  if (token.empty()) return;
  add_token(line, {});
  const std::string lower = lower_case(token);
  for (const auto& [from, to] : kPrinted)
    if (lower == from) {
      line += to;
      return;
    }
  for (size_t i = 0; i < lower.size();) {
    const size_t bytes = next_utf8(lower, i).bytes;
    const std::string_view character = std::string_view(lower).substr(i, bytes);
    if (character == "\u2019" || character == "\u0092") {
      line += '\'';
    } else if (character == " ") {
      line += "\u00a0";
    } else if (character == "(") {
      line += "-lrb-";
    } else if (character == ")") {
      line += "-rrb-";
    } else if (character != "\u00ad") {
      line += character;
    }
    i += bytes;
  }
}

/// One line of the document: no line breaks, no bytes that are not UTF-8, nothing beyond the Basic Multilingual Plane
/// (which the published tokenizer drops as untokenizable, character by character).
void add_line(std::string& document, std::string_view line) {
  for (size_t i = 0; i < line.size();) {
    const Utf8Step step = next_utf8(line, i);
    const char32_t c = step.code_point;
    const bool is_break = (c >= 0x0A && c <= 0x0D) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!step.valid || c > 0xFFFF || is_break) {
      document += ' ';
    } else {
      document.append(line.substr(i, step.bytes));
    }
    i += step.bytes;
  }
  document += '\n';
}

/// Bytes of a word of small letters, the first perhaps a capital, that a space ends, or a period or comma and a space;
/// 0 where the rules must decide. Most words are such, and all rules at each of them would take ten times as long.
size_t plain_word(std::string_view text, size_t at) {
  const auto is_small = [&](size_t i) { return i < text.size() && text[i] >= 'a' && text[i] <= 'z'; };
  const auto is_space = [&](size_t i) { return i < text.size() && (text[i] == ' ' || text[i] == '\n'); };
  if (!is_small(at) && !(text[at] >= 'A' && text[at] <= 'Z')) return 0;
  size_t end = at + 1;
  while (is_small(end)) ++end;
  const std::string_view word = text.substr(at, end - at);
  if (ptb_split(word) != 0) return 0;
  if (is_space(end)) return word.size();
  if (end >= text.size() || !is_space(end + 1)) return 0;
  const bool period = text[end] == '.' && !is_ptb_abbreviation(word) && !is_ptb_number_abbreviation(word);
  return period || text[end] == ',' ? word.size() : 0;
}

}  // namespace

class PtbTokenizer::Rules {
 public:
  Rules() {
    for (const PtbRule& rule : ptb_rules())
      codes_.push_back(compile_pcre(rule.pattern, PCRE2_UCP | PCRE2_ANCHORED | PCRE2_DOLLAR_ENDONLY, kPtbTokenizer));
  }

  /// The best rule at `at`, and how far its token goes.
  struct Found {
    const PtbRule* rule = nullptr;
    size_t bytes = 0;
  };
  Found find(std::string_view text, size_t at, const PcreMatch& match) const {
    Found best;
    size_t longest = 0;
    for (size_t i = 0; i < codes_.size(); ++i) {
      const int groups = search_pcre(codes_[i], text, at, match, kPtbTokenizer);
      if (groups == 0) continue;
      const size_t* range = pcre2_get_ovector_pointer(match.get());
      if (range[1] - at <= longest) continue;
      const auto group = [&](int k) {
        return k < groups ? text.substr(range[2 * k], range[2 * k + 1] - range[2 * k]) : std::string_view();
      };
      if (!holds(ptb_rules()[i].take, group(1), group(2))) continue;
      longest = range[1] - at;
      best = {&ptb_rules()[i], groups > 1 && ptb_rules()[i].take != Take::kAbbreviation ? group(1).size() : longest};
    }
    PERMAFROST_CHECK(best.rule, kPtbTokenizer, ": a rule must hold at every place; got none at byte ", at);
    return best;
  }

 private:
  static bool holds(Take take, std::string_view first, std::string_view second) {
    if (take == Take::kAbbreviation) return is_ptb_abbreviation(first);
    if (take == Take::kNumberAbbreviation) return is_ptb_number_abbreviation(first.substr(0, first.size() - 1));
    return take != Take::kInitial || is_ptb_sentence_start(second);
  }

  std::vector<PcreCode> codes_;
};

PtbTokenizer::PtbTokenizer() : rules_(std::make_unique<Rules>()) {}
PtbTokenizer::~PtbTokenizer() = default;

std::vector<std::string> PtbTokenizer::tokenize(std::span<const std::string> lines) const {
  std::string document;
  std::vector<size_t> ends;
  for (const std::string& line : lines) {
    add_line(document, line);
    ends.push_back(document.size());
  }
  const PcreMatch match = make_pcre_match(2, kPtbTokenizer);
  const std::string_view text = document;
  std::vector<std::string> tokens(lines.size());
  for (size_t at = 0, line = 0; at < text.size();) {
    while (at >= ends[line]) ++line;
    if (text[at] == ' ' || text[at] == '\n') {
      ++at;
      continue;
    }
    if (const size_t bytes = plain_word(text, at); bytes > 0) {
      add_token(tokens[line], lower_case(text.substr(at, bytes)));
      at += bytes;
      continue;
    }
    const Rules::Found found = rules_->find(text, at, match);
    const std::string_view token = text.substr(at, found.bytes);
    const size_t split = found.rule->take == Take::kWord ? ptb_split(token) : 0;
    if (found.rule->take != Take::kDrop) {
      add_printed(tokens[line], token.substr(0, split));
      add_printed(tokens[line], token.substr(split));
    }
    at += found.bytes;
  }
  return tokens;
}

}  // namespace permafrost
