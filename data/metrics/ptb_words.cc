// The words that the Penn Treebank tokenizer of CoreNLP 3.4.1 treats in a way of their own: found by giving it every
// word of up to four letters, and 25,000 longer ones, followed by a period, in small letters, capitalised and in
// capitals.
#include "data/metrics/ptb_words.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "data/metrics/lower_case.h"

namespace permafrost {
namespace {

using namespace std::string_view_literals;

// Each list in alphabetical order.
constexpr std::string_view kAbbreviations[] = {
    "adj",   "adm",  "adv",  "al",   "ala",  "alex",  "apr",  "ariz", "assn", "asst", "atty", "aug",  "ave",
    "bhd",   "bldg", "blvd", "brig", "bros", "calif", "capt", "cf",   "cie",  "cmdr", "co",   "col",  "colo",
    "conn",  "corp", "cos",  "cpl",  "ct",   "dak",   "dec",  "dept", "det",  "dr",   "drs",  "elec", "ens",
    "esq",   "est",  "etc",  "ext",  "feb",  "fla",   "fri",  "ft",   "ga",   "gen",  "gov",  "govs", "hon",
    "inc",   "ind",  "insp", "intl", "invt", "jan",   "jos",  "jr",   "jul",  "jun",  "kan",  "kans", "ky",
    "lt",    "ltd",  "maj",  "mar",  "md",   "mich",  "minn", "mlle", "mme",  "mo",   "mon",  "mont", "mr",
    "mrs",   "ms",   "msgr", "mt",   "natl", "neb",   "nev",  "nov",  "oct",  "okla", "penn", "pfc",  "ph",
    "plc",   "pres", "prof", "pvt",  "rd",   "rep",   "reps", "rev",  "rt",   "sen",  "sens", "sep",  "sept",
    "seq",   "sfc",  "sgt",  "spc",  "sq",   "sr",    "st",   "ste",  "supt", "sys",  "tel",  "tenn", "thu",
    "thurs", "tue",  "tues", "univ", "va",   "vs",    "vt",   "wed",  "wis",  "wisc", "wm",   "wyo"};
// Words that are abbreviations only with a capital: "Mass." but "mass ."
constexpr std::string_view kCapitalAbbreviations[] = {"ark",  "az",  "del", "ill", "la",  "mass",
                                                      "miss", "ore", "pa",  "tex", "wash"};
// Abbreviations that are none when all letters are capitals.
constexpr std::string_view kSmallAbbreviations[] = {"mfg", "mtg", "ppte", "ppty", "pte", "ptes", "pty", "ptys"};
constexpr std::string_view kNumberAbbreviations[] = {"art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"};
constexpr std::string_view kSentenceStarts[] = {
    "a",    "about", "according", "additionally", "after", "an", "as",   "at",   "but",   "earlier", "he",
    "her",  "here",  "however",   "if",           "in",    "it", "last", "many", "more",  "now",     "once",
    "one",  "other", "our",       "she",          "since", "so", "some", "such", "that",  "the",     "their",
    "then", "there", "these",     "they",         "this",  "we", "what", "when", "while", "yet",     "you"};

template <size_t N>
bool contains(const std::string_view (&list)[N], std::string_view word) {
  return std::binary_search(std::begin(list), std::end(list), word);
}

bool is_capital(char c) { return c >= 'A' && c <= 'Z'; }
bool is_ascii_letter(char c) { return is_capital(c) || (c >= 'a' && c <= 'z'); }

}  // namespace

bool is_ptb_abbreviation(std::string_view word) {
  if (word.size() == 1) return is_ascii_letter(word[0]);
  const std::string lower = lower_case(word);
  if (contains(kAbbreviations, lower)) return true;
  if (contains(kCapitalAbbreviations, lower)) return is_capital(word[0]);
  return contains(kSmallAbbreviations, lower) && !std::all_of(word.begin(), word.end(), is_capital);
}

bool is_ptb_number_abbreviation(std::string_view word) { return contains(kNumberAbbreviations, lower_case(word)); }

bool is_ptb_sentence_start(std::string_view word) { return contains(kSentenceStarts, lower_case(word)); }

size_t ptb_split(std::string_view word) {
  if (word.size() < 5 || word.size() > 6) return 0;
  const std::string lower = lower_case(word);
  for (const std::string_view whole : {"cannot"sv, "gonna"sv, "gotta"sv, "lemme"sv, "gimme"sv, "wanna"sv})
    if (lower == whole) return 3;
  return 0;
}

}  // namespace permafrost
