#include "data/loader/text_table.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/base/philox.h"
#include "core/base/sha256.h"
#include "core/device/thread_pool.h"
#include "core/kernels/cross_entropy.h"

namespace permafrost {

namespace {

/// What a dataset must have for a task. `missing`: of the sample, "" when nothing is.
std::string_view missing_for(TextTask task, const Sample& sample, bool needs_answers) {
  if (task == TextTask::kCaptions)
    return sample.caption.empty() && !sample.question.empty() ? "a caption is expected; got a question" : "";
  if (sample.question.empty()) return "a question is expected; got none";
  if (needs_answers && sample.answers.empty()) return "training needs at least one answer to every question; got none";
  return "";
}

}  // namespace

std::vector<int32_t> TextIds::joined() const {
  std::vector<int32_t> all(prompt.begin(), prompt.end());
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

TextTable::TextTable(const Dataset& dataset, const Tokenizer& tokenizer, const TextConfig& config)
    : loss_tokens_(config.loss_tokens),
      seed_(config.seed),
      pad_id_(tokenizer.pad_id()),
      first_id_(tokenizer.prefix().empty() ? tokenizer.end_id() : tokenizer.prefix().front()) {
  PERMAFROST_CHECK(config.max_tokens >= 2 && config.threads >= 1 && config.task != TextTask::kClasses,
                   "text_table: max_tokens >= 2, threads >= 1 and a task with texts are expected; got ",
                   config.max_tokens, ", ", config.threads, " and ", to_string(config.task));
  constexpr int64_t kBlock = 1024;
  const int64_t blocks = div_up(dataset.size(), kBlock);
  std::vector<std::vector<TextPieces>> encoded(static_cast<size_t>(blocks));
  ThreadPool pool(config.threads);
  pool.run(blocks, [&](int64_t block, int) {
    for (int64_t i = block * kBlock; i < std::min(dataset.size(), (block + 1) * kBlock); ++i) {
      auto packed = dataset.packed_text(i);
      encoded[static_cast<size_t>(block)].push_back(packed ? *std::move(packed)
                                                           : text_pieces(tokenizer, config.task, dataset.sample(i)));
    }
  });
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const Sample sample = dataset.sample(i);
    if (const auto missing = missing_for(config.task, sample, config.needs_answers); !missing.empty())
      fail(ErrorKind::kData, "text: ", missing, " in sample ", sample_name(sample),
           sample.question.empty() ? "" : concat(" (\"", sample.question.substr(0, 80), "\")"));
    auto& block = encoded[static_cast<size_t>(i / kBlock)];
    take(i, sample.id, block[static_cast<size_t>(i % kBlock)], config);
    if (i % kBlock == std::ssize(block) - 1) std::vector<TextPieces>().swap(block);  // memory holds texts once
  }
  if (too_long_ > 0 && config.long_text == LongTextPolicy::kFail) {
    const Sample sample = dataset.sample(first_long_);
    fail(ErrorKind::kData, "text: at most ", config.max_tokens, " tokens are expected; got ", first_length_,
         " in sample ", sample_name(sample), " (\"",
         (config.task == TextTask::kVqa ? sample.question : sample.caption).substr(0, 80), "\"), and ", too_long_,
         " of ", dataset.size(), " texts are over [param=max_text_tokens]");
  }
  (config.long_text == LongTextPolicy::kSkip ? skipped_ : truncated_) = too_long_;
  if (dataset_index_.empty())
    fail(ErrorKind::kData, "text: at least one text of at most ", config.max_tokens,
         " tokens is expected; got none among ", dataset.size(), " [param=max_text_tokens]");
  find_parts(dataset.parts());
}

TextTable::TextTable(const Dataset& dataset) {
  if (dataset.labels_per_image() == 0)
    fail(ErrorKind::kData, "text: task CLASSES needs a dataset with class labels; got one without");
  longest_ = 1;
  Sha256 classes;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const Sample sample = dataset.sample(i);
    const int32_t token = 0;
    add_piece({&token, 1}, 1, 0);
    add_piece({}, 0, 1);
    first_piece_.push_back(scores_.size());
    sample_ids_.push_back(sample.id);
    dataset_index_.push_back(i);
    classes.update(sample.classes.data(), sample.classes.size_bytes());
    class_targets_.push_back(static_cast<int32_t>(std::ssize(sample.classes)) -
                             static_cast<int32_t>(std::ranges::count(sample.classes, kIgnoredLabel)));
  }
  classes_hash_ = classes.finish();
  find_parts(dataset.parts());
}

void TextTable::add_piece(std::span<const int32_t> ids, size_t room, float score) {
  const auto kept = ids.first(std::min(ids.size(), room));
  ids_.insert(ids_.end(), kept.begin(), kept.end());
  begin_.push_back(ids_.size());
  scores_.push_back(score);
}

void TextTable::take(int64_t index, uint64_t id, const TextPieces& pieces, const TextConfig& config) {
  size_t longest_rest = 0;
  for (const auto& rest : pieces.rest) longest_rest = std::max(longest_rest, rest.size());
  const size_t length = pieces.prompt.size() + longest_rest, limit = static_cast<size_t>(config.max_tokens);
  if (length > limit && too_long_++ == 0) first_long_ = index, first_length_ = length;
  if (length > limit && config.long_text == LongTextPolicy::kSkip) return;
  add_piece(pieces.prompt, limit, 0);
  for (size_t i = 0; i < pieces.rest.size(); ++i)
    add_piece(pieces.rest[i], limit - std::min(limit, pieces.prompt.size()), pieces.scores[i]);
  first_piece_.push_back(scores_.size());
  sample_ids_.push_back(id);
  dataset_index_.push_back(index);
  longest_ = std::max(longest_, static_cast<int64_t>(std::min(length, limit)));
}

TextIds TextTable::ids(int64_t i, uint32_t epoch) const {
  const auto at = static_cast<size_t>(i);
  const size_t first = first_piece_[at] + 1, end = first_piece_[at + 1];
  TextIds text{piece(first - 1), {}};
  if (first == end) return text;
  size_t chosen = first;
  if (end - first > 1) {
    double total = 0;
    for (size_t p = first; p < end; ++p) total += scores_[p];
    double left = Random(seed_, RandomPurpose::kAnswerChoice, epoch, sample_ids_[at]).next_double() * total;
    while (chosen + 1 < end && left >= scores_[chosen]) left -= scores_[chosen++];
  }
  text.rest = piece(chosen);
  return text;
}

int64_t TextTable::first_target(int64_t i) const {
  return loss_tokens_ == LossTokens::kAll ? 1 : std::max<int64_t>(1, std::ssize(prompt_ids(i)));
}

int64_t TextTable::targets(int64_t i, uint32_t epoch) const {
  if (!class_targets_.empty()) return class_targets_[static_cast<size_t>(i)];
  return std::max<int64_t>(0, length(i, epoch) - first_target(i));
}

/// A part keeps the rows whose samples are in it.
void TextTable::find_parts(const std::vector<MixPart>& parts) {
  for (const MixPart& part : parts) {
    const auto row_of = [&](int64_t sample) {
      return std::lower_bound(dataset_index_.begin(), dataset_index_.end(), sample) - dataset_index_.begin();
    };
    const int64_t begin = row_of(part.begin), end = row_of(part.begin + part.count);
    if (begin == end)
      fail(ErrorKind::kData, "text: every dataset of a mix must keep a sample; got none of the ", part.count,
           " of mix[", parts_.size(), "] that are short enough [param=max_text_tokens]");
    parts_.push_back({begin, end - begin, part.weight});
  }
}

std::string TextTable::hash() const {
  Sha256 hash;
  const auto add = [&](const auto& values) {
    const uint64_t count = values.size();
    hash.update(&count, sizeof count);
    hash.update(values.data(), values.size() * sizeof values[0]);
  };
  add(ids_);
  add(begin_);
  add(scores_);
  add(first_piece_);
  add(sample_ids_);
  add(dataset_index_);
  add(class_targets_);
  hash.update(classes_hash_.data(), classes_hash_.size());
  for (const MixPart& part : parts_) hash.update(&part, sizeof part);
  return hash.finish();
}

}  // namespace permafrost
