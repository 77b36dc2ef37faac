// Word lists of the official VQA evaluation (VQA v2, vqaEval.py), which the published scores stand on, its slips
// included: "couldnt've" is repaired and "cantve" is not, "somebody'd" loses its apostrophe. Entries that can change
// nothing, because words are in small letters when they are looked up, are left out.
#include "data/metrics/vqa_words.h"

#include <string>
#include <unordered_map>

namespace permafrost {
namespace {

struct WordPair {
  std::string_view from, to;
};

constexpr WordPair kNumbers[] = {{"none", "0"},  {"zero", "0"},  {"one", "1"},  {"two", "2"},
                                 {"three", "3"}, {"four", "4"},  {"five", "5"}, {"six", "6"},
                                 {"seven", "7"}, {"eight", "8"}, {"nine", "9"}, {"ten", "10"}};

// Written without any apostrophe, these get theirs.
constexpr std::string_view kWithoutApostrophes[] = {
    "'twas",       "ain't",      "aren't",    "can't",      "could've",  "couldn't",    "didn't",       "doesn't",
    "don't",       "hadn't",     "hasn't",    "haven't",    "he'd",      "he's",        "how'd",        "how'll",
    "how's",       "isn't",      "it'd",      "it'll",      "ma'am",     "might've",    "mightn't",     "must've",
    "mustn't",     "needn't",    "not've",    "o'clock",    "oughtn't",  "shan't",      "should've",    "shouldn't",
    "somebody'll", "somebody's", "someone'd", "someone'll", "someone's", "something'd", "something'll", "that's",
    "there'd",     "there're",   "there's",   "they'd",     "they'll",   "they're",     "they've",      "wasn't",
    "we've",       "weren't",    "what'll",   "what're",    "what's",    "what've",     "when's",       "where'd",
    "where's",     "where've",   "who'd",     "who'll",     "who's",     "who've",      "why'll",       "why're",
    "why's",       "won't",      "would've",  "wouldn't",   "y'all",     "you'd",       "you'll",       "you're",
    "you've"};

constexpr WordPair kOtherContractions[] = {{"'ow'sat", "'ow's'at"},
                                           {"'ows'at", "'ow's'at"},
                                           {"couldn'tve", "couldn't've"},
                                           {"couldnt've", "couldn't've"},
                                           {"hadn'tve", "hadn't've"},
                                           {"hadnt've", "hadn't've"},
                                           {"he'dve", "he'd've"},
                                           {"hed've", "he'd've"},
                                           {"it'dve", "it'd've"},
                                           {"itd've", "it'd've"},
                                           {"mightn'tve", "mightn't've"},
                                           {"mightnt've", "mightn't've"},
                                           {"ow's'at", "'ow's'at"},
                                           {"she'dve", "she'd've"},
                                           {"shed've", "she'd've"},
                                           {"shouldn'tve", "shouldn't've"},
                                           {"shouldnt've", "shouldn't've"},
                                           {"somebody'd", "somebodyd"},
                                           {"somebody'dve", "somebody'd've"},
                                           {"somebodyd've", "somebody'd've"},
                                           {"someone'dve", "someone'd've"},
                                           {"someoned've", "someone'd've"},
                                           {"something'dve", "something'd've"},
                                           {"somethingd've", "something'd've"},
                                           {"there'dve", "there'd've"},
                                           {"thered've", "there'd've"},
                                           {"they'dve", "they'd've"},
                                           {"theyd've", "they'd've"},
                                           {"we'dve", "we'd've"},
                                           {"wed've", "we'd've"},
                                           {"who'dve", "who'd've"},
                                           {"whod've", "who'd've"},
                                           {"wouldn'tve", "wouldn't've"},
                                           {"wouldnt've", "wouldn't've"},
                                           {"y'all'dve", "y'all'd've"},
                                           {"y'alld've", "y'all'd've"},
                                           {"y'allll", "y'all'll"},
                                           {"yall'd've", "y'all'd've"},
                                           {"yall'll", "y'all'll"},
                                           {"you'dve", "you'd've"},
                                           {"youd've", "you'd've"}};

std::unordered_map<std::string, std::string_view> contractions() {
  std::unordered_map<std::string, std::string_view> table;
  for (const std::string_view whole : kWithoutApostrophes) {
    std::string bare;
    for (const char c : whole)
      if (c != '\'') bare += c;
    table.emplace(std::move(bare), whole);
  }
  for (const auto& [from, to] : kOtherContractions) table.emplace(from, to);
  return table;
}

}  // namespace

std::string_view vqa_number(std::string_view word) {
  for (const auto& [from, to] : kNumbers)
    if (word == from) return to;
  return word;
}

std::string_view vqa_contraction(std::string_view word) {
  static const auto table = contractions();
  const auto found = table.find(std::string(word));
  return found == table.end() ? word : found->second;
}

bool is_vqa_article(std::string_view word) { return word == "a" || word == "an" || word == "the"; }

}  // namespace permafrost
