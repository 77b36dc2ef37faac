#include "launch/evaluation/published_text.h"

#include <vector>

namespace permafrost {

namespace {

void erase_every(std::string& text, std::string_view part) {
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at)) text.erase(at, part.size());
}

std::string special_text(const Tokenizer& tokenizer, int32_t id) {
  for (const SpecialToken& special : tokenizer.specials())
    if (special.id == id) return special.text;
  return {};
}

}  // namespace

std::string published_text(const Tokenizer& tokenizer, TextTask task, std::span<const int32_t> prompt,
                           std::span<const int32_t> generated) {
  std::vector<int32_t> ids;
  for (const auto part : {prompt, generated})
    for (const int32_t id : part)
      if (tokenizer.contains(id)) ids.push_back(id);  // rows of the embedding without a token say nothing
  ids.push_back(tokenizer.end_id());
  std::string text = tokenizer.decode(ids);
  const std::string end = special_text(tokenizer, tokenizer.end_id());
  if (task == TextTask::kVqa) {
    const size_t answer = text.find(kAnswerToken);
    text.erase(0, answer == std::string::npos ? text.size() : answer + kAnswerToken.size());
    erase_every(text, special_text(tokenizer, tokenizer.pad_id()));
    erase_every(text, end);
    return text;
  }
  const size_t first = text.find(end);
  text.erase(0, first == std::string::npos ? 0 : first + end.size());
  return text.substr(0, text.find(end));
}

}  // namespace permafrost
