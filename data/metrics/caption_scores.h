#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace permafrost {

/// A generated caption and what people wrote about the same image.
struct CaptionItem {
  std::string candidate;
  std::vector<std::string> references;  ///< at least one
};

/// Of all items, or of one. As fractions: BLEU and ROUGE-L lie in 0..1, CIDEr in 0..10 (tables print them times 100).
struct CaptionScore {
  std::array<double, 4> bleu{};  ///< BLEU-1 to BLEU-4
  double rouge_l = 0;
  double cider = 0;
};

struct CaptionScores {
  CaptionScore all;
  std::vector<CaptionScore> items;  ///< in the order of the input
  int64_t candidate_tokens = 0;     ///< of all candidates, after tokenisation
  int64_t reference_tokens = 0;     ///< of the reference of each item whose length is closest to the candidate's
};

/// Scores as the COCO caption tools (pycocoevalcap) define them:
/// - tokens by PtbTokenizer: all references as one document in the order of the items, all candidates as another;
/// - BLEU of the corpus: clipped n-gram matches and lengths summed over the items, closest reference length (the
/// shorter
///   of two equally close); of one item: the same on its own counts;
/// - ROUGE-L with beta = 1.2: best precision and best recall over the references, mean over items;
/// - CIDEr-D, which the tools call CIDEr: n-grams of 1..4, document frequencies over the items given (not over a fixed
///   corpus), clipped, Gaussian length penalty with sigma = 6, times 10; mean over items. A single item scores 0,
///   because every document frequency is then that of the whole corpus.
///
/// Doubles throughout, the same bits every time and in every order of the items, as far as the tokens do not change
/// (PtbTokenizer). Errors: kData for no items, or an item without references (named by its place).
CaptionScores score_captions(std::span<const CaptionItem> items);

/// The same of captions that are tokenised already (tokens joined by single spaces).
CaptionScores score_tokenized_captions(std::span<const CaptionItem> items);

/// Mean of values, summed in ascending order: the same bits in whatever order they come. 0 for none.
double order_free_mean(std::vector<double> values);

}  // namespace permafrost
