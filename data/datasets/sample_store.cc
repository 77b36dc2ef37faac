#include "data/datasets/sample_store.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "data/datasets/sample_id.h"

namespace permafrost {

SampleStore::Text SampleStore::keep(std::string_view text) {
  const Text kept{texts_.size(), narrow<uint32_t>(text.size())};
  texts_.insert(texts_.end(), text.begin(), text.end());
  return kept;
}

void SampleStore::add(const Sample& sample, const std::string& place) {
  if (sample.id >> kSampleIdBits != 0)
    fail(ErrorKind::kData, "dataset: sample ids below 2^", kSampleIdBits, " are expected; got ", sample.id, place);
  records_.push_back({sample.id, sample.image, keep(sample.caption), keep(sample.question), keep(sample.name), 0, 0});
  set_answers(size() - 1, sample.answers);
}

void SampleStore::set_image(int64_t index, int64_t image) { records_.at(static_cast<size_t>(index)).image = image; }

void SampleStore::set_answers(int64_t index, std::span<const Answer> answers) {
  Record& record = records_.at(static_cast<size_t>(index));
  record.first_answer = answer_texts_.size();
  record.answers = narrow<uint32_t>(answers.size());
  for (const Answer& answer : answers) answer_texts_.emplace_back(keep(answer.text), answer.score);
}

void SampleStore::finish() {
  answers_.clear();
  answers_.reserve(answer_texts_.size());
  for (const auto& [text, score] : answer_texts_) answers_.push_back({view(text), score});
}

Sample SampleStore::sample(int64_t index) const {
  PERMAFROST_CHECK(index >= 0 && index < size(), "dataset: index must lie in 0..", size() - 1, "; got ", index);
  const Record& record = records_[static_cast<size_t>(index)];
  Sample sample;
  sample.id = record.id;
  sample.image = record.image;
  sample.caption = view(record.caption);
  sample.question = view(record.question);
  sample.name = view(record.name);
  if (!answers_.empty()) sample.answers = std::span(answers_).subspan(record.first_answer, record.answers);
  return sample;
}

std::optional<uint64_t> SampleStore::repeated_id() const {
  std::vector<uint64_t> ids;
  ids.reserve(records_.size());
  for (const Record& record : records_) ids.push_back(record.id);
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice == ids.end()) return std::nullopt;
  return *twice;
}

}  // namespace permafrost
