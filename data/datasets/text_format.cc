#include "data/datasets/text_format.h"

#include "core/base/check.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {

namespace {

void erase_all(std::string& text, std::string_view part) {
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at)) text.erase(at, part.size());
}

/// The end token stands once, at the end.
void erase_end_tokens(const Tokenizer& tokenizer, std::string& text) {
  for (const auto& special : tokenizer.specials())
    if (special.id == tokenizer.end_id()) erase_all(text, special.text);
}

int32_t answer_id(const Tokenizer& tokenizer) {
  for (const auto& special : tokenizer.specials())
    if (special.text == kAnswerToken) return special.id;
  fail(ErrorKind::kConfig, "text: questions need a tokenizer with the added token ", kAnswerToken,
       "; got one without it");
}

std::vector<int32_t> caption_rest(const Tokenizer& tokenizer, std::string_view caption) {
  std::string text(strip(caption));
  erase_end_tokens(tokenizer, text);
  std::vector<int32_t> ids;
  tokenizer.encode_plain(text, ids);
  ids.push_back(tokenizer.end_id());
  return ids;
}

/// `</a>` takes the white space behind it, so the answer is encoded with it in front.
std::vector<int32_t> answer_rest(const Tokenizer& tokenizer, std::string_view answer) {
  std::string text(answer);
  erase_all(text, "[SEP]");
  erase_end_tokens(tokenizer, text);
  std::vector<int32_t> ids;
  tokenizer.encode_plain(std::string(kAnswerToken) + text, ids);
  ids.erase(ids.begin());
  ids.push_back(tokenizer.end_id());
  return ids;
}

}  // namespace

std::string_view to_string(TextTask task) {
  switch (task) {
    case TextTask::kCaptions:
      return "CAPTIONING";
    case TextTask::kVqa:
      return "VQA";
    case TextTask::kClasses:
      break;
  }
  return "CLASSES";
}

std::vector<int32_t> question_ids(const Tokenizer& tokenizer, std::string_view question) {
  answer_id(tokenizer);
  std::vector<int32_t> ids = tokenizer.prefix();
  tokenizer.encode_plain(concat(question, '?', kAnswerToken), ids);
  return ids;
}

std::vector<int32_t> caption_ids(const Tokenizer& tokenizer, std::string_view caption) {
  std::vector<int32_t> ids = tokenizer.prefix();
  const std::vector<int32_t> rest = caption_rest(tokenizer, caption);
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

TextPieces text_pieces(const Tokenizer& tokenizer, TextTask task, const Sample& sample) {
  TextPieces pieces;
  if (task == TextTask::kCaptions) {
    pieces.prompt = tokenizer.prefix();
    pieces.rest.push_back(caption_rest(tokenizer, sample.caption));
    pieces.scores.push_back(1);
  } else if (task == TextTask::kVqa) {
    pieces.prompt = question_ids(tokenizer, sample.question);
    for (const Answer& answer : sample.answers) {
      pieces.rest.push_back(answer_rest(tokenizer, answer.text));
      pieces.scores.push_back(answer.score);
    }
  }
  return pieces;
}

}  // namespace permafrost
