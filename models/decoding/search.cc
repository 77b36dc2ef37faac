#include "models/decoding/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/check.h"
#include "core/base/narrow.h"

namespace permafrost {

TextSearch::TextSearch(const SearchConfig& config, std::vector<SearchPrompt> prompts, int64_t vocabulary)
    : config_(config), prompts_(std::move(prompts)), vocabulary_(vocabulary) {
  PERMAFROST_CHECK(config.beams >= 1 && vocabulary >= 2 * config.beams,
                   "search: beams must be 1 and up, the vocabulary at least twice as large; got ", config.beams,
                   " beams, ", vocabulary, " tokens");
  PERMAFROST_CHECK(std::isfinite(config.length_penalty), "search: length_penalty must be finite; got ",
                   config.length_penalty);
  for (const SearchPrompt& prompt : prompts_) {
    Sample& sample = samples_.emplace_back();
    sample.beams.resize(static_cast<size_t>(config.beams));
    sample.beams[0].alive = true;  // all beams are alike before the first token; one stands for them
    sample.done = prompt.max_new_tokens <= 0;
    if (sample.done) sample.finished.emplace_back();
  }
  parents_.resize(static_cast<size_t>(rows()));
  std::iota(parents_.begin(), parents_.end(), 0);
  tokens_.assign(parents_.size(), config.pad_id);
}

bool TextSearch::done() const {
  return std::ranges::all_of(samples_, [](const Sample& sample) { return sample.done; });
}

double TextSearch::normalised(double sum, int64_t length) const {
  return length == 0 ? sum : sum / std::pow(static_cast<double>(length), config_.length_penalty);
}

namespace {

/// log of the sum of exponentials of a row. Errors: kNonFinite.
double log_normaliser(std::span<const float> row, int64_t number) {
  const double largest = *std::ranges::max_element(row);
  double sum = 0;
  for (const float logit : row) sum += std::exp(static_cast<double>(logit) - largest);
  const double result = largest + std::log(sum);
  if (!std::isfinite(result))
    fail(ErrorKind::kNonFinite, "search: logits must be finite; got those of row ", number, " with a log-sum-exp of ",
         result);
  return result;
}

}  // namespace

/// The best `count` continuations of a sample's beams, best first.
std::vector<TextSearch::Candidate> TextSearch::best_continuations(size_t s, std::span<const float> logits,
                                                                  int64_t rows_per_sample, int64_t count) const {
  const auto better = [](const Candidate& a, const Candidate& b) {
    if (a.sum != b.sum) return a.sum > b.sum;
    return a.beam != b.beam ? a.beam < b.beam : a.token < b.token;
  };
  std::vector<Candidate> best;  // a heap whose top is the worst kept
  const bool may_end = generated_ >= config_.min_new_tokens;
  for (int32_t b = 0; b < config_.beams; ++b) {
    const Beam& beam = samples_[s].beams[static_cast<size_t>(b)];
    if (!beam.alive) continue;
    const int64_t row = static_cast<int64_t>(s) * rows_per_sample + b;
    const auto of_row = logits.subspan(static_cast<size_t>(row * vocabulary_), static_cast<size_t>(vocabulary_));
    const double start = beam.sum - log_normaliser(of_row, row);
    for (int32_t token = 0; token < vocabulary_; ++token) {
      if (token == config_.end_id && !may_end) continue;
      const Candidate candidate{start + static_cast<double>(of_row[static_cast<size_t>(token)]), b, token};
      if (std::ssize(best) == count && !better(candidate, best.front())) continue;
      if (std::ssize(best) == count) {
        std::ranges::pop_heap(best, better);
        best.pop_back();
      }
      best.push_back(candidate);
      std::ranges::push_heap(best, better);
    }
  }
  std::ranges::sort(best, better);
  return best;
}

void TextSearch::advance(std::span<const float> logits) {
  const bool first = generated_ == 0;
  const auto samples = std::ssize(samples_);
  const bool for_all_rows = std::ssize(logits) == rows() * vocabulary_;
  PERMAFROST_CHECK(for_all_rows || (first && std::ssize(logits) == samples * vocabulary_), "search: logits of ", rows(),
                   " rows", first ? concat(" or ", samples, " samples") : "", " and ", vocabulary_,
                   " tokens expected; got ", logits.size(), " numbers");
  const int64_t rows_per_sample = for_all_rows ? config_.beams : 1;
  for (size_t s = 0; s < samples_.size(); ++s) {
    for (int64_t b = 0; b < config_.beams; ++b) {
      const auto row = s * static_cast<size_t>(config_.beams) + static_cast<size_t>(b);
      parents_[row] = narrow<int32_t>(row);
      tokens_[row] = config_.pad_id;
    }
    if (samples_[s].done) continue;
    if (config_.beams == 1)
      advance_greedily(s, best_continuations(s, logits, rows_per_sample, 1));
    else
      advance_beams(s, best_continuations(s, logits, rows_per_sample, 2 * config_.beams));
  }
  ++generated_;
  for (size_t s = 0; s < samples_.size(); ++s)
    if (!samples_[s].done && generated_ >= prompts_[s].max_new_tokens) finish_all(s);
}

void TextSearch::advance_greedily(size_t s, const std::vector<Candidate>& best) {
  Sample& sample = samples_[s];
  Beam& beam = sample.beams[0];
  beam.sum = best[0].sum;
  if (best[0].token == config_.end_id) {
    finish(s, {beam.tokens, true, beam.sum, 0}, generated_);
    sample.done = true;
    return;
  }
  beam.tokens.push_back(best[0].token);
  tokens_[s] = best[0].token;
}

void TextSearch::advance_beams(size_t s, const std::vector<Candidate>& best) {
  Sample& sample = samples_[s];
  std::vector<Beam> next;
  const size_t first_row = s * static_cast<size_t>(config_.beams);
  for (size_t rank = 0; rank < best.size() && std::ssize(next) < config_.beams; ++rank) {
    const Candidate& candidate = best[rank];
    const Beam& from = sample.beams[static_cast<size_t>(candidate.beam)];
    if (candidate.token == config_.end_id) {
      if (narrow<int64_t>(rank) < config_.beams) finish(s, {from.tokens, true, candidate.sum, 0}, generated_);
      continue;
    }
    parents_[first_row + next.size()] = narrow<int32_t>(first_row) + candidate.beam;
    tokens_[first_row + next.size()] = candidate.token;
    Beam& beam = next.emplace_back(Beam{from.tokens, candidate.sum, true});
    beam.tokens.push_back(candidate.token);
  }
  next.resize(static_cast<size_t>(config_.beams));
  sample.beams = std::move(next);
  if (std::ssize(sample.finished) < config_.beams) return;
  // Lengths here are those of the texts before (4.2x) or behind (later) the token just found.
  const bool full = config_.normalisation == SearchConfig::Normalisation::kFull;
  const int64_t length = full ? prompts_[s].length + generated_ : generated_ + 1;
  sample.done = config_.early_stopping || sample.worst >= normalised(best[0].sum, length);
}

/// generated: tokens of the text, without the end token.
void TextSearch::finish(size_t s, FoundText text, int64_t generated) {
  Sample& sample = samples_[s];
  const bool full = config_.normalisation == SearchConfig::Normalisation::kFull;
  text.score = normalised(text.log_probability, full ? prompts_[s].length + generated : generated + text.ended);
  auto& finished = sample.finished;
  if (std::ssize(finished) >= config_.beams && !(text.score > sample.worst)) return;
  finished.push_back(std::move(text));
  if (std::ssize(finished) > config_.beams) finished.erase(std::ranges::min_element(finished, {}, &FoundText::score));
  sample.worst = std::ranges::min_element(finished, {}, &FoundText::score)->score;
}

void TextSearch::finish_all(size_t s) {
  Sample& sample = samples_[s];
  for (const Beam& beam : sample.beams)
    if (beam.alive) finish(s, {beam.tokens, false, beam.sum, 0}, generated_);
  sample.done = true;
}

std::vector<FoundText> TextSearch::results() const {
  PERMAFROST_CHECK(done(), "search: results are there once all samples are done");
  std::vector<FoundText> results;
  for (const Sample& sample : samples_) {
    const FoundText* best = &sample.finished.front();
    for (const FoundText& text : sample.finished)
      if (text.score >= best->score) best = &text;  // the later of equals
    results.push_back(*best);
  }
  return results;
}

std::vector<FoundText> search_texts(
    const SearchConfig& config, const std::vector<SearchPrompt>& prompts, int64_t vocabulary,
    const std::function<std::span<const float>(std::span<const int32_t>, std::span<const int32_t>)>& step) {
  TextSearch search(config, prompts, vocabulary);
  for (bool first = true; !search.done(); first = false)
    search.advance(first ? step({}, {}) : step(search.parents(), search.tokens()));
  return search.results();
}

}  // namespace permafrost
