#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace permafrost {

/// How texts are searched. Greedy with one beam, else beam search.
/// Source: transformers 4.2x, generation_beam_search.py (BeamSearchScorer, BeamHypotheses) and its successors to 4.4x.
struct SearchConfig {
  enum class Normalisation : uint8_t {
    kFull,       ///< a finished text's sum of log-probabilities is divided by (prompt and text, without the end token)
                 ///< ^ length_penalty: transformers 4.2x
    kGenerated,  ///< by (generated tokens, with the end token) ^ length_penalty: transformers 4.31 and later
  };
  int64_t beams = 1;
  double length_penalty = 1;
  Normalisation normalisation = Normalisation::kFull;
  bool early_stopping = false;  ///< a sample is done as soon as it has `beams` finished texts
  int64_t min_new_tokens = 0;   ///< generated tokens before the end token may come
  int32_t end_id = 2;
  int32_t pad_id = 1;  ///< what samples that are done go on with
};

/// What the search must know of a prompt.
struct SearchPrompt {
  int64_t length = 1;          ///< tokens, as kFull counts them
  int64_t max_new_tokens = 1;  ///< end token included; 0 = this sample gets nothing, and is done at once
};

struct FoundText {
  std::vector<int32_t> tokens;  ///< generated, without the end token
  bool ended = false;           ///< an end token followed; otherwise the length ran out
  double log_probability = 0;   ///< sum over tokens, end token included
  double score = 0;             ///< normalised; of greedy search as well
};

/// Search for the most probable texts of several samples at once, one token at a time: rows are (sample, beam). The
/// caller computes logits of all rows behind their last tokens and calls advance, until done.
///
/// Beam search: of each sample the 2 beams best continuations are looked at, in falling order, between equals the lower
/// beam and then the lower id first. An end token among the first `beams` of them finishes a text, a later one is
/// passed over; the first `beams` others go on. A sample is done when it has `beams` finished texts and early_stopping
/// is set, or the worst of them is no worse than the best continuation's sum divided by its present length; at the
/// latest when the length runs out, where all beams count as finished. Of equal scores the text found last wins.
/// Greedy: the most probable token, of equals the lowest id. Log-probabilities are those of softmax(logits) in f64.
class TextSearch {
 public:
  TextSearch(const SearchConfig& config, std::vector<SearchPrompt> prompts, int64_t vocabulary);

  bool done() const;
  int64_t rows() const { return static_cast<int64_t>(prompts_.size()) * config_.beams; }

  /// logits: (samples, vocabulary) for the first token, when all beams are alike, (rows, vocabulary) after it; the
  /// first may also come for all rows, of which each sample's first is read. Errors: kInvalidArgument for another size;
  /// kNonFinite naming the row when its logits have no finite sum of probabilities.
  void advance(std::span<const float> logits);

  /// Of the last advance, per row: the row that it goes on from, and the token behind that.
  std::span<const int32_t> parents() const { return parents_; }
  std::span<const int32_t> tokens() const { return tokens_; }

  /// The best text of each sample, once done. Errors: kInvalidArgument before.
  std::vector<FoundText> results() const;

 private:
  struct Beam {
    std::vector<int32_t> tokens;
    double sum = 0;
    bool alive = false;
  };
  struct Candidate {
    double sum = 0;
    int32_t beam = 0, token = 0;
  };
  struct Sample {
    std::vector<Beam> beams;
    std::vector<FoundText> finished;
    double worst = 0;  // score among them
    bool done = false;
  };

  std::vector<Candidate> best_continuations(size_t sample, std::span<const float> logits, int64_t rows_per_sample,
                                            int64_t count) const;
  void advance_greedily(size_t sample, const std::vector<Candidate>& best);
  void advance_beams(size_t sample, const std::vector<Candidate>& best);
  void finish(size_t sample, FoundText text, int64_t counted_length);
  void finish_all(size_t sample);
  double normalised(double sum, int64_t length) const;

  SearchConfig config_;
  std::vector<SearchPrompt> prompts_;
  int64_t vocabulary_;
  std::vector<Sample> samples_;
  std::vector<int32_t> parents_, tokens_;
  int64_t generated_ = 0;
};

/// Runs a search to its end. `step` gets parents and tokens as above, empty before the first token, and returns logits.
std::vector<FoundText> search_texts(const SearchConfig& config, const std::vector<SearchPrompt>& prompts,
                                    int64_t vocabulary,
                                    const std::function<std::span<const float>(std::span<const int32_t> parents,
                                                                               std::span<const int32_t> tokens)>& step);

}  // namespace permafrost
