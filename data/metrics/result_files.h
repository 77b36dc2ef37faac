#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/metrics/json_entry.h"

namespace permafrost {

enum class ResultKind {
  kCaptions,  ///< COCO: [{"image_id": 42, "caption": "..."}]
  kAnswers,   ///< VQA and EvalAI: [{"question_id": 42001, "answer": "..."}]
};
std::string_view to_string(ResultKind kind);

/// What a model said about one image or question.
struct Result {
  SampleId id;
  std::string text;
};

struct ResultFile {
  ResultKind kind = ResultKind::kCaptions;
  std::vector<Result> results;  ///< in the order of the file
};

/// Reads either kind; which one it is shows in the entries. Further keys are allowed.
/// Errors: kData naming file and entry: not a list, empty, entries of both kinds or of neither, an id that is no whole
/// number or text, a text that is none, an id twice; malformed JSON with line and column.
ResultFile read_results(const std::filesystem::path& file);

/// Writes a file that read_results and the official tools read: one entry a line, in the given order, the same bytes
/// for the same results. Ids are written as numbers where they are. Bytes that are not UTF-8 become U+FFFD. The file
/// appears complete or not at all. Errors: kData for an id twice; kStorage.
void write_results(const std::filesystem::path& file, ResultKind kind, std::span<const Result> results);

}  // namespace permafrost
