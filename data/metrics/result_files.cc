#include "data/metrics/result_files.h"

#include <optional>
#include <unordered_set>

#include "core/base/check.h"
#include "core/weights/atomic_file.h"
#include "data/files/json_entries.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {
namespace {

struct ResultKeys {
  const char* id;
  const char* text;
};
ResultKeys keys_of(ResultKind kind) {
  return kind == ResultKind::kCaptions ? ResultKeys{"image_id", "caption"} : ResultKeys{"question_id", "answer"};
}

ResultKind kind_of_result(const JsonEntry& entry) {
  const bool caption = entry.has("caption") && entry.has("image_id"),
             answer = entry.has("answer") && entry.has("question_id");
  if (caption == answer) entry.refuse("either image_id and caption or question_id and answer in each entry");
  return caption ? ResultKind::kCaptions : ResultKind::kAnswers;
}

void require_unique(std::span<const Result> results, const std::string& place) {
  std::unordered_set<std::string_view> ids;
  for (const Result& result : results)
    if (!ids.insert(result.id.text).second)
      fail(ErrorKind::kData, "results: one entry for each id is expected; got id ", result.id.text, " twice", place);
}

}  // namespace

std::string_view to_string(ResultKind kind) { return kind == ResultKind::kCaptions ? "captions" : "answers"; }

ResultFile read_results(const std::filesystem::path& file) {
  ResultFile read;
  std::optional<ResultKind> kind;
  JsonEntries entries;
  entries.file = file;
  entries.wants = [](const std::string&) { return true; };
  entries.take = [&](const std::string&, bool, const Json& value) {
    const JsonEntry entry{value, "results", file};
    const ResultKind own = kind_of_result(entry);
    if (kind && own != *kind) entry.refuse(concat("one kind of entry (the first ones are ", to_string(*kind), ")"));
    kind = own;
    read.results.push_back({entry.id(keys_of(own).id), entry.text(keys_of(own).text)});
  };
  const std::string place = " [file=" + file.string() + "]";
  if (!entries.read().is_array())
    fail(ErrorKind::kData, "results: a list of entries is expected; got an object", place);
  if (!kind) fail(ErrorKind::kData, "results: at least one entry is expected; got none", place);
  read.kind = *kind;
  require_unique(read.results, place);
  return read;
}

void write_results(const std::filesystem::path& file, ResultKind kind, std::span<const Result> results) {
  require_unique(results, " [file=" + file.string() + "]");
  std::string text = "[";
  for (const Result& result : results) {
    text += &result == results.data() ? "\n" : ",\n";
    const Json id = result.id.is_number ? parse_json(result.id.text) : Json(result.id.text);
    text += concat("{\"", keys_of(kind).id, "\": ", json_text(id), ", \"", keys_of(kind).text,
                   "\": ", json_text(Json(replace_invalid_utf8(result.text))), "}");
  }
  write_file_atomically(file.string(), text + "\n]\n");
}

}  // namespace permafrost
