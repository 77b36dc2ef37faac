#include "data/metrics/caption_scores.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "data/metrics/ptb_tokenizer.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {
namespace {

constexpr size_t kOrders = 4;  // n-grams of 1 to 4 words

/// Words as Python's str.split(" ") gives them: never none.
std::vector<std::string_view> words_between_spaces(std::string_view text) {
  std::vector<std::string_view> words;
  for (size_t begin = 0;;) {
    const size_t end = text.find(' ', begin);
    words.push_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return words;
    begin = end + 1;
  }
}

struct CountedNgram {
  uint32_t id = 0;
  int64_t count = 0;
};

/// The n-grams of a sentence, by order, each once with its count, in the order of first appearance (which fixes the
/// order of every sum over them).
struct Ngrams {
  int64_t words = 0;
  std::array<std::vector<CountedNgram>, kOrders> of_order;
};

/// Numbers words and n-grams, so that sentences are compared as numbers.
class NgramTable {
 public:
  Ngrams ngrams(std::string_view sentence) {
    std::u32string ids;
    for (const std::string_view word : python_words(sentence))
      ids += static_cast<char32_t>(words_.try_emplace(std::string(word), words_.size()).first->second);
    Ngrams result;
    result.words = static_cast<int64_t>(ids.size());
    for (size_t n = 1; n <= kOrders && n <= ids.size(); ++n) {
      auto& counted = result.of_order[n - 1];
      std::unordered_map<uint32_t, size_t> place;
      for (size_t i = 0; i + n <= ids.size(); ++i) {
        const auto next = narrow<uint32_t>(ngrams_.size());
        const uint32_t id = ngrams_.try_emplace(ids.substr(i, n), next).first->second;
        const auto [found, is_new] = place.try_emplace(id, counted.size());
        if (is_new) counted.push_back({id, 0});
        ++counted[found->second].count;
      }
    }
    return result;
  }
  size_t size() const { return ngrams_.size(); }

 private:
  std::unordered_map<std::string, size_t> words_;
  std::unordered_map<std::u32string, uint32_t> ngrams_;
};

struct CountedItem {
  Ngrams candidate;
  std::vector<Ngrams> references;
};

// --- BLEU ------------------------------------------------------------------------------------------------------------

struct BleuCounts {
  std::array<int64_t, kOrders> guessed{}, correct{};
  int64_t candidate_words = 0, reference_words = 0;
};

BleuCounts bleu_counts(const CountedItem& item) {
  BleuCounts counts;
  counts.candidate_words = item.candidate.words;
  std::pair<int64_t, int64_t> closest{-1, 0};  // distance, length
  for (const Ngrams& reference : item.references) {
    const std::pair<int64_t, int64_t> one{std::abs(reference.words - item.candidate.words), reference.words};
    if (closest.first < 0 || one < closest) closest = one;
  }
  counts.reference_words = closest.second;
  for (size_t n = 0; n < kOrders; ++n) {
    std::unordered_map<uint32_t, int64_t> most;
    for (const Ngrams& reference : item.references)
      for (const CountedNgram& ngram : reference.of_order[n]) most[ngram.id] = std::max(most[ngram.id], ngram.count);
    counts.guessed[n] = std::max<int64_t>(0, item.candidate.words - static_cast<int64_t>(n));
    for (const CountedNgram& ngram : item.candidate.of_order[n])
      if (const auto found = most.find(ngram.id); found != most.end())
        counts.correct[n] += std::min(found->second, ngram.count);
  }
  return counts;
}

/// The published constants against division by zero are part of the definition: they show in scores near 0.
std::array<double, kOrders> bleu_of(const BleuCounts& counts) {
  constexpr double kSmall = 1e-9, kTiny = 1e-15;
  std::array<double, kOrders> bleu{};
  double product = 1;
  for (size_t n = 0; n < kOrders; ++n) {
    product *= (static_cast<double>(counts.correct[n]) + kTiny) / (static_cast<double>(counts.guessed[n]) + kSmall);
    bleu[n] = std::pow(product, 1.0 / static_cast<double>(n + 1));
  }
  const double ratio =
      (static_cast<double>(counts.candidate_words) + kTiny) / (static_cast<double>(counts.reference_words) + kSmall);
  if (ratio < 1)
    for (double& score : bleu) score *= std::exp(1 - 1 / ratio);
  return bleu;
}

// --- ROUGE-L ---------------------------------------------------------------------------------------------------------

size_t longest_common_subsequence(std::span<const std::string_view> a, std::span<const std::string_view> b) {
  std::vector<size_t> row(b.size() + 1);
  for (const std::string_view word : a) {
    size_t diagonal = 0;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = word == b[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
      diagonal = above;
    }
  }
  return row[b.size()];
}

double rouge_l(const CaptionItem& item) {
  constexpr double kBetaSquared = 1.2 * 1.2;
  const auto candidate = words_between_spaces(item.candidate);
  double precision = 0, recall = 0;
  for (const std::string& text : item.references) {
    const auto reference = words_between_spaces(text);
    const auto common = static_cast<double>(longest_common_subsequence(reference, candidate));
    precision = std::max(precision, common / static_cast<double>(candidate.size()));
    recall = std::max(recall, common / static_cast<double>(reference.size()));
  }
  if (precision == 0 || recall == 0) return 0;
  return (1 + kBetaSquared) * precision * recall / (recall + kBetaSquared * precision);
}

// --- CIDEr -----------------------------------------------------------------------------------------------------------

/// Term frequency times inverse document frequency, and the norm of that vector, for each order.
struct WeightedNgrams {
  std::array<std::unordered_map<uint32_t, double>, kOrders> weight;
  std::array<double, kOrders> norm{};
  double bigrams = 0;  // the length in the published penalty
};

class Cider {
 public:
  Cider(std::span<const CountedItem> items, size_t ngrams)
      : frequency_(ngrams), log_items_(std::log(static_cast<double>(items.size()))) {
    std::vector<size_t> last(ngrams, items.size());  // the item that counted an n-gram last
    for (size_t i = 0; i < items.size(); ++i)
      for (const Ngrams& reference : items[i].references)
        for (const auto& order : reference.of_order)
          for (const CountedNgram& ngram : order)
            if (std::exchange(last[ngram.id], i) != i) ++frequency_[ngram.id];
  }

  double score(const CountedItem& item) const {
    const WeightedNgrams candidate = weighted(item.candidate);
    std::array<double, kOrders> sums{};
    for (const Ngrams& text : item.references) {
      const auto similar = similarity(item.candidate, candidate, weighted(text));
      for (size_t n = 0; n < kOrders; ++n) sums[n] += similar[n];
    }
    double mean = 0;
    for (const double sum : sums) mean += sum;
    return mean / kOrders / static_cast<double>(item.references.size()) * 10.0;
  }

 private:
  WeightedNgrams weighted(const Ngrams& text) const {
    WeightedNgrams result;
    for (size_t n = 0; n < kOrders; ++n) {
      for (const CountedNgram& ngram : text.of_order[n]) {
        const double inverse = log_items_ - std::log(std::max(1.0, frequency_[ngram.id]));
        const double weight = static_cast<double>(ngram.count) * inverse;
        result.weight[n][ngram.id] = weight;
        result.norm[n] += weight * weight;
        if (n == 1) result.bigrams += static_cast<double>(ngram.count);
      }
      result.norm[n] = std::sqrt(result.norm[n]);
    }
    return result;
  }

  static std::array<double, kOrders> similarity(const Ngrams& order, const WeightedNgrams& candidate,
                                                const WeightedNgrams& reference) {
    constexpr double kSigma = 6.0;
    const double delta = candidate.bigrams - reference.bigrams;
    std::array<double, kOrders> result{};
    for (size_t n = 0; n < kOrders; ++n) {
      for (const CountedNgram& ngram : order.of_order[n]) {
        const auto found = reference.weight[n].find(ngram.id);
        if (found == reference.weight[n].end()) continue;  // its weight there is 0
        result[n] += std::min(candidate.weight[n].at(ngram.id), found->second) * found->second;
      }
      if (candidate.norm[n] != 0 && reference.norm[n] != 0) result[n] /= candidate.norm[n] * reference.norm[n];
      result[n] *= std::exp(-(delta * delta) / (2 * kSigma * kSigma));
    }
    return result;
  }

  std::vector<double> frequency_;  // of each n-gram: items with it in a reference
  double log_items_;
};

void check_items(std::span<const CaptionItem> items) {
  if (items.empty()) fail(ErrorKind::kData, "caption scores: at least one caption is expected; got none");
  for (size_t i = 0; i < items.size(); ++i)
    if (items[i].references.empty())
      fail(ErrorKind::kData, "caption scores: each item needs at least one reference; got none for item ", i, " of ",
           items.size());
}

}  // namespace

double order_free_mean(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

CaptionScores score_tokenized_captions(std::span<const CaptionItem> items) {
  check_items(items);
  NgramTable table;
  std::vector<CountedItem> counted(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    counted[i].candidate = table.ngrams(items[i].candidate);
    for (const std::string& text : items[i].references) counted[i].references.push_back(table.ngrams(text));
  }
  CaptionScores scores;
  const Cider cider(counted, table.size());
  BleuCounts total;
  std::vector<double> rouge_values, cider_values;
  for (size_t i = 0; i < items.size(); ++i) {
    const BleuCounts counts = bleu_counts(counted[i]);
    for (size_t n = 0; n < kOrders; ++n) {
      total.guessed[n] += counts.guessed[n];
      total.correct[n] += counts.correct[n];
    }
    total.candidate_words += counts.candidate_words;
    total.reference_words += counts.reference_words;
    scores.items.push_back({bleu_of(counts), rouge_l(items[i]), cider.score(counted[i])});
    rouge_values.push_back(scores.items.back().rouge_l);
    cider_values.push_back(scores.items.back().cider);
  }
  scores.all = {bleu_of(total), order_free_mean(rouge_values), order_free_mean(cider_values)};
  scores.candidate_tokens = total.candidate_words;
  scores.reference_tokens = total.reference_words;
  return scores;
}

CaptionScores score_captions(std::span<const CaptionItem> items) {
  check_items(items);
  std::vector<std::string> candidates, references;
  for (const CaptionItem& item : items) {
    candidates.push_back(item.candidate);
    references.insert(references.end(), item.references.begin(), item.references.end());
  }
  const PtbTokenizer tokenizer;
  const std::vector<std::string> candidate_tokens = tokenizer.tokenize(candidates),
                                 reference_tokens = tokenizer.tokenize(references);
  std::vector<CaptionItem> tokenized;
  auto next = reference_tokens.begin();
  for (size_t i = 0; i < items.size(); ++i) {
    const auto end = next + static_cast<std::ptrdiff_t>(items[i].references.size());
    tokenized.push_back({candidate_tokens[i], {next, end}});
    next = end;
  }
  return score_tokenized_captions(tokenized);
}

}  // namespace permafrost
