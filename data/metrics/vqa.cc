#include "data/metrics/vqa.h"

#include <algorithm>
#include <vector>

#include "core/base/check.h"
#include "data/metrics/lower_case.h"
#include "data/metrics/vqa_words.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {
namespace {

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

/// A mark beside a space anywhere in the text goes away everywhere; otherwise it becomes a space. Where the text holds
/// a comma between digits, all marks go away.
std::string without_punctuation(std::string_view text) {
  constexpr std::string_view kMarks = ";/[]\"{}()=+\\_-><@`,?!";
  bool all_away = false;
  for (size_t i = 1; i + 1 < text.size(); ++i)
    all_away |= text[i] == ',' && is_ascii_digit(text[i - 1]) && is_ascii_digit(text[i + 1]);
  std::string result;
  for (const char c : text) {
    if (kMarks.find(c) == std::string_view::npos) {
      result += c;
      continue;
    }
    const bool away = all_away || text.find(std::string{c, ' '}) != std::string_view::npos ||
                      text.find(std::string{' ', c}) != std::string_view::npos;
    if (!away) result += ' ';
  }
  return result;
}

std::string without_periods(std::string_view text) {
  constexpr int kReplacedAtMost = 32;  // re.UNICODE stands where the official script's call takes a count
  std::string result;
  int replaced = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool before_digit = i + 1 < text.size() && is_ascii_digit(text[i + 1]);
    if (text[i] == '.' && !before_digit && replaced < kReplacedAtMost) {
      ++replaced;
    } else {
      result += text[i];
    }
  }
  return result;
}

void require_answers(const char* who, std::span<const std::string> answers) {
  if (answers.empty()) fail(ErrorKind::kData, who, ": at least one answer is expected; got none");
}

}  // namespace

std::string clean_vqa_answer(std::string_view text) {
  std::string spaced(text);
  std::replace_if(
      spaced.begin(), spaced.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return std::string(strip(spaced));
}

std::string normalize_vqa_answer(std::string_view text) {
  const std::string lower = lower_case(without_periods(without_punctuation(text)));
  std::string result;
  for (const std::string_view one : python_words(lower)) {
    const std::string_view word = vqa_number(one);
    if (is_vqa_article(word)) continue;
    if (!result.empty()) result += ' ';
    result += vqa_contraction(word);
  }
  return result;
}

double vqa_accuracy(std::string_view prediction, std::span<const std::string> answers) {
  require_answers("vqa accuracy", answers);
  std::string given = clean_vqa_answer(prediction);
  std::vector<std::string> people;
  for (const std::string& answer : answers) people.push_back(clean_vqa_answer(answer));
  const bool unanimous = std::all_of(people.begin(), people.end(), [&](const auto& one) { return one == people[0]; });
  if (!unanimous) {
    given = normalize_vqa_answer(given);
    for (std::string& answer : people) answer = normalize_vqa_answer(answer);
  }
  const auto matches = std::count(people.begin(), people.end(), given);
  double sum = 0;
  for (const std::string& answer : people) {
    const auto others = matches - (answer == given ? 1 : 0);
    sum += std::min(1.0, static_cast<double>(others) / 3);
  }
  return sum / static_cast<double>(people.size());
}

double direct_answer_accuracy(std::string_view prediction, std::span<const std::string> answers) {
  require_answers("direct answer accuracy", answers);
  const auto matches = std::count(answers.begin(), answers.end(), prediction);
  return std::min(1.0, static_cast<double>(matches) / 3);
}

double soft_label_accuracy(std::string_view prediction, const std::map<std::string, double>& labels) {
  const std::string given = normalize_vqa_answer(clean_vqa_answer(prediction));
  double best = 0;
  for (const auto& [answer, score] : labels)
    if (normalize_vqa_answer(clean_vqa_answer(answer)) == given) best = std::max(best, score);
  return best;
}

bool exact_match(std::string_view prediction, std::string_view answer) { return strip(prediction) == strip(answer); }

bool normalized_exact_match(std::string_view prediction, std::string_view answer) {
  const auto normalized = [](std::string_view text) {
    std::string cleaned = clean_vqa_answer(text);
    std::erase(cleaned, ',');
    return normalize_vqa_answer(cleaned);
  };
  return normalized(prediction) == normalized(answer);
}

}  // namespace permafrost
