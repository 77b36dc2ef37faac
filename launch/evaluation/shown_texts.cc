#include "launch/evaluation/shown_texts.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/weights/atomic_file.h"
#include "data/images/decode.h"
#include "data/images/sheet.h"

namespace permafrost {

namespace {

constexpr int64_t kSheetColumns = 6;

std::span<const EvaluatedText> first_of(std::span<const EvaluatedText> texts, int64_t count) {
  return texts.first(std::min(texts.size(), static_cast<size_t>(count)));
}

/// A caption, or question and answer.
std::string said(const Evaluator& evaluator, const EvaluatedText& text) {
  const std::string question(evaluator.data().dataset->sample(text.sample).question);
  if (question.empty()) return text.result.text;
  const bool space = text.result.text.starts_with(' ');  // as published texts have
  return question + (space ? "" : " ") + text.result.text;
}

std::string expected_text(const Evaluator& evaluator, const EvaluatedText& text) {
  const std::vector<std::string> expected = evaluator.expected(text);
  return expected.empty() ? "" : expected.front();
}

}  // namespace

std::string text_lines(const Evaluator& evaluator, std::span<const EvaluatedText> texts, int64_t count) {
  std::string lines;
  for (const EvaluatedText& text : first_of(texts, count)) {
    lines += concat(evaluator.data().dataset->short_image_name(text.shown), ": ", said(evaluator, text));
    if (text.correct) lines += concat(" (expected ", expected_text(evaluator, text), ')');
    lines += '\n';
  }
  return lines;
}

void write_text_sheet(const std::filesystem::path& file, const Evaluator& evaluator,
                      std::span<const EvaluatedText> texts, int64_t count) {
  const Dataset& dataset = *evaluator.data().dataset;
  std::vector<SheetEntry> entries;
  std::vector<uint8_t> bytes;
  for (const EvaluatedText& text : first_of(texts, count)) {
    SheetEntry& entry = entries.emplace_back();
    dataset.read_image(text.shown, bytes);
    decode_image(bytes, evaluator.decode_options(), dataset.image_name(text.shown), entry.image);
    entry.caption = said(evaluator, text);
    entry.expected = expected_text(evaluator, text);
    entry.correct = text.correct;
  }
  write_sheet(file, entries, kSheetColumns);
}

void require_folder_of(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::is_directory(directory_of(file.string()), error))
    fail(ErrorKind::kStorage, "eval: the file of --sheet must be in a folder that is there; got ", file.string());
}

}  // namespace permafrost
