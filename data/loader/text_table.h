#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/datasets/caption_dataset.h"
#include "data/tokenizer/tokenizer.h"

namespace permafrost {

/// What to do with a text of more tokens than `max_tokens`.
enum class LongTextPolicy {
  kFail,      ///< refuse the dataset, naming the sample
  kSkip,      ///< leave its sample out
  kTruncate,  ///< cut its end off, the final end token included, as tokenizers do
};

struct TextConfig {
  int64_t max_tokens = 64;  ///< what the tokenizer adds included
  LongTextPolicy long_text = LongTextPolicy::kFail;
  int threads = 1;
};

/// Ids of a caption as trained on: white space at both ends removed, end tokens inside removed, the tokenizer's prefix
/// in front and its end token behind. OPT: `</s>` caption `</s>`.
std::vector<int32_t> caption_ids(const Tokenizer& tokenizer, std::string_view caption);

/// The tokenised texts of a dataset, made once at the start, so that the shape of every micro-batch is known to every
/// rank before anything is decoded. Independent of `threads`.
class TextTable {
 public:
  /// Errors: kData for a text over the length (naming the sample, both lengths and how many there are), or when the
  /// policy leaves no sample.
  TextTable(const CaptionDataset& dataset, const Tokenizer& tokenizer, const TextConfig& config);

  /// Samples that are trained on.
  int64_t size() const { return static_cast<int64_t>(dataset_index_.size()); }
  /// Where the i-th of them stands in the dataset.
  int64_t dataset_index(int64_t i) const { return dataset_index_[static_cast<size_t>(i)]; }
  int64_t length(int64_t i) const { return static_cast<int64_t>(ids(i).size()); }
  std::span<const int32_t> ids(int64_t i) const {
    const auto at = static_cast<size_t>(i);
    return std::span(ids_).subspan(begin_[at], begin_[at + 1] - begin_[at]);
  }
  int64_t longest() const { return longest_; }
  int64_t skipped() const { return skipped_; }
  int64_t truncated() const { return truncated_; }
  int32_t pad_id() const { return pad_id_; }
  int32_t first_id() const { return first_id_; }  ///< what a padding sample holds as its one token

 private:
  std::vector<int32_t> ids_;
  std::vector<size_t> begin_{0};
  std::vector<int64_t> dataset_index_;
  int64_t longest_ = 0, skipped_ = 0, truncated_ = 0;
  int32_t pad_id_ = 0, first_id_ = 0;
};

}  // namespace permafrost
