#include "data/shards/shard_layout.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

#include "core/base/check.h"
#include "core/base/crc32c.h"

namespace permafrost {

namespace {

constexpr char kFormat[] = "permafrost shard";

template <typename T>
void append_bytes(std::string& to, std::span<const T> values) {
  to.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}
void append_number(std::string& to, uint64_t value) { append_bytes(to, std::span<const uint64_t>(&value, 1)); }
void append_text(std::string& to, std::string_view text) {
  append_number(to, text.size());
  to += text;
}

[[noreturn]] void refuse_shard(const std::filesystem::path& path, const std::string& message) {
  fail(ErrorKind::kData, "shard: ", message, " [file=", path.string(), "]");
}

/// Calls visit(dataset name, vector) for every dataset but the images' bytes, in the order of the file.
template <typename Index, typename Visit>
void for_each_dataset(Index& index, Visit&& visit) {
  visit("images/offsets", index.image_offsets);
  visit("images/crc32c", index.image_crc32c);
  visit("images/ids", index.image_ids);
  visit("images/names", index.image_names.bytes);
  visit("images/name_offsets", index.image_names.offsets);
  visit("images/annotations", index.annotations.bytes);
  visit("images/annotation_offsets", index.annotations.offsets);
  visit("images/classes", index.classes);
  visit("samples/ids", index.sample_ids);
  visit("samples/images", index.sample_images);
  visit("samples/positions", index.positions);
  visit("samples/names", index.names.bytes);
  visit("samples/name_offsets", index.names.offsets);
  visit("samples/captions", index.captions.bytes);
  visit("samples/caption_offsets", index.captions.offsets);
  visit("samples/questions", index.questions.bytes);
  visit("samples/question_offsets", index.questions.offsets);
  visit("samples/first_answers", index.first_answers);
  visit("samples/token_ids", index.token_ids);
  visit("samples/piece_offsets", index.piece_offsets);
  visit("samples/crc32c", index.text_crc32c);
  visit("answers/texts", index.answers.bytes);
  visit("answers/text_offsets", index.answers.offsets);
  visit("answers/scores", index.answer_scores);
}

uint32_t index_crc32c(const ShardIndex& index) {
  uint32_t crc = 0;
  for_each_dataset(index, [&](const char*, const auto& values) {
    const uint64_t size = values.size();
    crc = crc32c({reinterpret_cast<const char*>(&size), sizeof size}, crc);
    crc = crc32c({reinterpret_cast<const char*>(values.data()), size * sizeof values[0]}, crc);
  });
  return crc;
}

/// Sizes that must agree.
class IndexChecker {
 public:
  IndexChecker(const ShardIndex& index, const std::filesystem::path& path) : index_(index), path_(path) {}

  void check(uint64_t image_bytes) const {
    const size_t images = index_.image_ids.size(), samples = index_.sample_ids.size();
    offsets("images/offsets", index_.image_offsets, images, image_bytes);
    size("images/crc32c", index_.image_crc32c.size(), images);
    column("images/name_offsets", index_.image_names, images);
    column("images/annotation_offsets", index_.annotations, images);
    if (index_.header.labels_per_image < 0 || index_.header.labels_per_image > 1024)
      refuse_shard(path_, concat("0 to 1024 labels per image are expected; got ", index_.header.labels_per_image));
    size("images/classes", index_.classes.size(), images * static_cast<size_t>(index_.header.labels_per_image));
    size("samples/images", index_.sample_images.size(), samples);
    if (!index_.positions.empty()) size("samples/positions", index_.positions.size(), samples);
    column("samples/name_offsets", index_.names, samples);
    column("samples/caption_offsets", index_.captions, samples);
    column("samples/question_offsets", index_.questions, samples);
    size("samples/crc32c", index_.text_crc32c.size(), samples);
    const size_t answers = index_.answer_scores.size();
    column("answers/text_offsets", index_.answers, answers);
    offsets("samples/first_answers", index_.first_answers, samples, answers);
    offsets("samples/piece_offsets", index_.piece_offsets, index_.first_pieces().back(), index_.token_ids.size());
    for (const uint32_t image : index_.sample_images)
      if (image >= images) refuse_shard(path_, concat("images below ", images, " are expected; got ", image));
    for (const float score : index_.answer_scores)
      if (!(score > 0)) refuse_shard(path_, concat("scores above 0 are expected; got ", score));
  }

  void check_texts() const {
    const auto pieces = index_.first_pieces();
    for (int64_t i = 0; i < index_.samples(); ++i) {
      const auto at = static_cast<size_t>(i);
      if (crc32c(index_.text_record(i, pieces[at])) == index_.text_crc32c[at]) continue;
      refuse_shard(path_, concat("a sample whose checksum (crc32c) agrees is expected; got damaged text in sample ",
                                 index_.name_of(at)));
    }
  }

 private:
  void size(const char* dataset, size_t got, size_t expected) const {
    if (got != expected) refuse_shard(path_, concat(expected, " elements are expected in ", dataset, "; got ", got));
  }
  void offsets(const char* dataset, const std::vector<uint64_t>& values, size_t entries, uint64_t end) const {
    size(dataset, values.size(), entries + 1);
    if (values.front() != 0 || values.back() != end || !std::ranges::is_sorted(values))
      refuse_shard(path_, concat("offsets from 0 to ", end, " in ascending order are expected in ", dataset,
                                 "; got others (from ", values.front(), " to ", values.back(), ")"));
  }
  void column(const char* dataset, const TextColumn& texts, size_t entries) const {
    offsets(dataset, texts.offsets, entries, texts.bytes.size());
  }

  const ShardIndex& index_;
  const std::filesystem::path& path_;
};

TextTask task_named(const std::string& name, const std::filesystem::path& path) {
  for (TextTask task : {TextTask::kCaptions, TextTask::kVqa, TextTask::kClasses})
    if (name == to_string(task)) return task;
  refuse_shard(path, concat("the task CAPTIONING, VQA or CLASSES is expected; got '", name, "'"));
}

}  // namespace

void TextColumn::add(std::string_view text) {
  bytes.insert(bytes.end(), text.begin(), text.end());
  offsets.push_back(bytes.size());
}

std::string ShardIndex::name_of(size_t sample) const {
  return names.at(sample).empty() ? std::to_string(sample_ids[sample]) : std::string(names.at(sample));
}

int64_t ShardIndex::pieces_of(int64_t sample) const {
  if (header.tokenizer_sha256.empty()) return 0;
  const auto at = static_cast<size_t>(sample);
  return 1 + (header.task == TextTask::kCaptions ? 1 : static_cast<int64_t>(first_answers[at + 1] - first_answers[at]));
}

std::vector<uint64_t> ShardIndex::first_pieces() const {
  std::vector<uint64_t> first{0};
  for (int64_t i = 0; i < samples(); ++i) first.push_back(first.back() + static_cast<uint64_t>(pieces_of(i)));
  return first;
}

std::string ShardIndex::text_record(int64_t sample, uint64_t first_piece) const {
  const auto at = static_cast<size_t>(sample);
  std::string record;
  append_number(record, sample_ids[at]);
  append_number(record, sample_images[at]);
  append_text(record, names.at(at));
  append_text(record, captions.at(at));
  append_text(record, questions.at(at));
  for (uint64_t a = first_answers[at]; a < first_answers[at + 1]; ++a) {
    append_text(record, answers.at(a));
    append_bytes(record, std::span(answer_scores).subspan(a, 1));
  }
  for (uint64_t p = first_piece; p < first_piece + static_cast<uint64_t>(pieces_of(sample)); ++p) {
    append_number(record, piece_offsets[p + 1] - piece_offsets[p]);
    append_bytes(record, std::span(token_ids).subspan(piece_offsets[p], piece_offsets[p + 1] - piece_offsets[p]));
  }
  return record;
}

void ShardIndex::write(Hdf5File& file) const {
  file.write_attribute("format", kFormat);
  file.write_attribute("version", kShardVersion);
  file.write_attribute("task", std::string(to_string(header.task)));
  file.write_attribute("tokenizer_sha256", header.tokenizer_sha256);
  file.write_attribute("packed_from", header.packed_from);
  file.write_attribute("labels_per_image", header.labels_per_image);
  file.write_attribute("shard", header.shard);
  file.write_attribute("shards", header.shards);
  file.write_attribute("index_crc32c", static_cast<int64_t>(index_crc32c(*this)));
  for_each_dataset(*this, [&](const char* name, const auto& values) { file.write(name, std::span(values)); });
}

ShardHeader ShardIndex::read_header(const Hdf5File& file) {
  const std::string format = file.text_attribute("format");
  if (format != kFormat)
    refuse_shard(file.path(), concat("the format '", kFormat, "' is expected; got '", format, "'"));
  const int64_t version = file.number_attribute("version");
  if (version != kShardVersion)
    refuse_shard(file.path(),
                 concat("version ", kShardVersion, " is expected; got ", version, "; pack the data again"));
  ShardHeader header;
  header.task = task_named(file.text_attribute("task"), file.path());
  header.tokenizer_sha256 = file.text_attribute("tokenizer_sha256");
  header.packed_from = file.text_attribute("packed_from");
  header.labels_per_image = file.number_attribute("labels_per_image");
  header.shard = file.number_attribute("shard");
  header.shards = file.number_attribute("shards");
  if (header.shards < 1 || header.shard < 0 || header.shard >= header.shards)
    refuse_shard(file.path(),
                 concat("a shard below the number of shards is expected; got ", header.shard, " of ", header.shards));
  return header;
}

ShardIndex ShardIndex::read(const Hdf5File& file) {
  ShardIndex index;
  index.header = read_header(file);
  for_each_dataset(index, [&](const char* name, auto& values) {
    using T = typename std::remove_reference_t<decltype(values)>::value_type;
    values = file.read<T>(name);
  });
  const IndexChecker checker(index, file.path());
  checker.check(static_cast<uint64_t>(file.elements("images/bytes")));
  checker.check_texts();
  if (static_cast<int64_t>(index_crc32c(index)) != file.number_attribute("index_crc32c"))
    refuse_shard(file.path(), "an index whose checksum (crc32c) agrees is expected; got a damaged one");
  return index;
}

std::string shard_file_name(int64_t shard, int64_t shards) {
  std::ostringstream name;
  name << "shard-" << std::setfill('0') << std::setw(5) << shard << "-of-" << std::setw(5) << shards << ".h5";
  return name.str();
}

}  // namespace permafrost
