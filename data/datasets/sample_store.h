#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/datasets/dataset.h"

namespace permafrost {

/// The samples of a dataset in memory: all texts one behind the other, so that a sample costs its texts and little
/// more. Views that `sample` gives live as long as the store stays where it is and nothing is added.
class SampleStore {
 public:
  /// Texts are copied; `image` may be set later. Errors: kData for an id that needs more than kSampleIdBits; `place`
  /// (" [file=…]") ends the message.
  void add(const Sample& sample, const std::string& place);
  void set_image(int64_t index, int64_t image);
  /// Replaces the answers of a sample, e.g. when they stand in a file of their own.
  void set_answers(int64_t index, std::span<const Answer> answers);
  /// Once, after the last change: makes what `sample` hands out.
  void finish();

  int64_t size() const { return static_cast<int64_t>(records_.size()); }
  /// Without classes, and before `finish` without answers. Errors: kInvalidArgument for an index out of range.
  Sample sample(int64_t index) const;

  /// An id that stands in two samples, or none.
  std::optional<uint64_t> repeated_id() const;

 private:
  struct Text {
    size_t begin = 0;
    uint32_t bytes = 0;
  };
  struct Record {
    uint64_t id = 0;
    int64_t image = 0;
    Text caption, question, name;
    size_t first_answer = 0;
    uint32_t answers = 0;
  };
  Text keep(std::string_view text);
  std::string_view view(Text text) const { return {texts_.data() + text.begin, text.bytes}; }

  std::vector<Record> records_;
  std::vector<char> texts_;  // not a string, whose short contents move with it and leave views behind
  std::vector<std::pair<Text, float>> answer_texts_;
  std::vector<Answer> answers_;
};

}  // namespace permafrost
