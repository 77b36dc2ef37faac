#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/datasets/dataset.h"
#include "data/datasets/text_format.h"

namespace permafrost {

/// What to do with a text of more tokens than `max_tokens`.
enum class LongTextPolicy {
  kFail,      ///< refuse the dataset, naming the sample
  kSkip,      ///< leave its sample out
  kTruncate,  ///< cut its end off, the final end token included, as tokenizers do
};

/// Which tokens a model is trained to predict.
enum class LossTokens {
  kAll,     ///< all but the first, which nothing predicts
  kAnswer,  ///< those behind the prompt
};

struct TextConfig {
  int64_t max_tokens = 64;  ///< what the tokenizer adds included
  LongTextPolicy long_text = LongTextPolicy::kFail;
  int threads = 1;
  TextTask task = TextTask::kCaptions;
  LossTokens loss_tokens = LossTokens::kAll;
  bool needs_answers =
      true;           ///< VQA: a question without answers refuses the dataset (training); else it has a prompt only
  uint64_t seed = 0;  ///< of the choice among answers
};

/// One text: prompt and what follows it (nothing where a question has no answer).
struct TextIds {
  std::span<const int32_t> prompt, rest;
  int64_t size() const { return std::ssize(prompt) + std::ssize(rest); }
  std::vector<int32_t> joined() const;
};

/// The tokenised texts of a dataset, made once at the start, so that the shape of every micro-batch is known to every
/// rank before anything is decoded. Of several answers one is drawn anew in every epoch, with probability proportional
/// to its score: a pure function of (seed, epoch, sample id). Independent of `threads`. Lookups allocate nothing.
class TextTable {
 public:
  /// Texts of task kCaptions or kVqa. Errors: kData for a text over the length (naming the sample, both lengths and how
  /// many there are), for questions without answers, for captions asked of a dataset that has none and the other way
  /// round, or when the policy leaves no sample.
  TextTable(const Dataset& dataset, const Tokenizer& tokenizer, const TextConfig& config);
  /// Task kClasses: a text of one token, id 0, for every sample. Errors: kData when the dataset has no class labels.
  explicit TextTable(const Dataset& dataset);

  /// Samples that are trained on.
  int64_t size() const { return static_cast<int64_t>(dataset_index_.size()); }
  /// Where the i-th of them stands in the dataset.
  int64_t dataset_index(int64_t i) const { return dataset_index_[static_cast<size_t>(i)]; }

  TextIds ids(int64_t i, uint32_t epoch) const;
  int64_t length(int64_t i, uint32_t epoch) const { return ids(i, epoch).size(); }
  /// What generation starts from: captions: the tokenizer's prefix; VQA: question, "?" and `</a>`.
  std::span<const int32_t> prompt_ids(int64_t i) const { return piece(first_piece_[static_cast<size_t>(i)]); }
  /// Place of the first token that is predicted.
  int64_t first_target(int64_t i) const;
  /// What the loss of the sample is a sum over: predicted tokens, or class labels.
  int64_t targets(int64_t i, uint32_t epoch) const;

  /// Of all texts that may be drawn.
  int64_t longest() const { return longest_; }
  int64_t skipped() const { return skipped_; }
  int64_t truncated() const { return truncated_; }
  int32_t pad_id() const { return pad_id_; }
  int32_t first_id() const { return first_id_; }  ///< what a padding sample holds as its one token

  /// The datasets of a mix, in rows of this table.
  std::vector<MixPart> parts() const { return parts_; }
  /// SHA-256 of everything that training reads from here.
  std::string hash() const;

 private:
  void take(int64_t index, uint64_t id, const TextPieces& pieces, const TextConfig& config);
  void add_piece(std::span<const int32_t> ids, size_t room, float score);
  void find_parts(const std::vector<MixPart>& parts);
  std::span<const int32_t> piece(size_t number) const {
    return std::span(ids_).subspan(begin_[number], begin_[number + 1] - begin_[number]);
  }

  // Pieces one behind the other: of each sample its prompt, then what may follow it.
  std::vector<int32_t> ids_;
  std::vector<size_t> begin_{0};        // of each piece in ids_
  std::vector<float> scores_;           // of each piece; 0 for prompts
  std::vector<size_t> first_piece_{0};  // of each sample
  std::vector<uint64_t> sample_ids_;
  std::vector<int64_t> dataset_index_;
  std::vector<int32_t> class_targets_;  // of each sample, with task kClasses
  std::string classes_hash_;
  std::vector<MixPart> parts_;
  LossTokens loss_tokens_ = LossTokens::kAll;
  uint64_t seed_ = 0;
  int64_t longest_ = 0, skipped_ = 0, truncated_ = 0;
  int64_t too_long_ = 0, first_long_ = -1;
  size_t first_length_ = 0;
  int32_t pad_id_ = 0, first_id_ = 0;
};

}  // namespace permafrost
