// Search by itself, on tables of logits: ties, limits, samples that end at different times.
#include "models/decoding/search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::throws_error;

constexpr int64_t kSearchVocabulary = 12;
constexpr int32_t kEndId = 2, kPadOfSearch = 1;

/// Logits of one row: log-probabilities of the tokens given, next to nothing for the others.
std::vector<float> row(const std::vector<std::pair<int32_t, double>>& probabilities) {
  std::vector<float> logits(kSearchVocabulary, -200.0f);
  for (const auto& [token, p] : probabilities) logits[static_cast<size_t>(token)] = static_cast<float>(std::log(p));
  return logits;
}

std::vector<float> rows(const std::vector<std::vector<float>>& all) {
  std::vector<float> flat;
  for (const auto& one : all) flat.insert(flat.end(), one.begin(), one.end());
  return flat;
}

TEST(Search, GreedyTakesTheLowestIdOfEquals) {
  TextSearch search({}, {{1, 3}, {1, 3}}, kSearchVocabulary);
  search.advance(rows({row({{7, 0.4}, {5, 0.4}, {9, 0.2}}), row({{kEndId, 0.9}, {4, 0.1}})}));
  EXPECT_EQ(std::vector<int32_t>(search.tokens().begin(), search.tokens().end()),
            (std::vector<int32_t>{5, kPadOfSearch}));
  EXPECT_FALSE(search.done());
  search.advance(rows({row({{kEndId, 1.0}}), row({{3, 1.0}})}));
  ASSERT_TRUE(search.done());
  const auto found = search.results();
  EXPECT_EQ(found[0].tokens, std::vector<int32_t>{5});
  EXPECT_TRUE(found[0].ended);
  EXPECT_TRUE(found[1].tokens.empty());
  // Sum log 0.4 + log 1, divided by the prompt's token and one generated; the end token does not count.
  EXPECT_NEAR(found[0].log_probability, std::log(0.4), 1e-6);
  EXPECT_NEAR(found[0].score, std::log(0.4) / 2, 1e-6);
}

TEST(Search, BeamsBreakTiesByBeamThenId) {
  SearchConfig config;
  config.beams = 2;
  TextSearch search(config, {{1, 2}}, kSearchVocabulary);
  search.advance(row({{6, 0.25}, {3, 0.25}, {8, 0.25}, {4, 0.25}}));
  EXPECT_EQ(search.tokens()[0], 3);
  EXPECT_EQ(search.tokens()[1], 4);
  EXPECT_EQ(search.parents()[0], 0);
  EXPECT_EQ(search.parents()[1], 0);
  search.advance(rows({row({{9, 0.5}, {5, 0.5}}), row({{5, 0.5}, {3, 0.5}})}));
  EXPECT_EQ(std::vector<int32_t>(search.tokens().begin(), search.tokens().end()), (std::vector<int32_t>{5, 9}));
  EXPECT_EQ(search.parents()[0], 0);
  EXPECT_EQ(search.parents()[1], 0);
  // Both ran out of length with one score: the one found last.
  ASSERT_TRUE(search.done());
  EXPECT_EQ(search.results()[0].tokens, (std::vector<int32_t>{3, 9}));
}

TEST(Search, AnEndTokenBehindTheFirstBeamsIsPassedOver) {
  SearchConfig config;
  config.beams = 2;
  config.early_stopping = true;
  config.length_penalty = 0;
  TextSearch search(config, {{1, 2}}, kSearchVocabulary);
  search.advance(row({{5, 0.5}, {6, 0.3}, {kEndId, 0.2}}));
  search.advance(rows({row({{7, 1.0}}), row({{8, 1.0}})}));
  EXPECT_FALSE(search.results()[0].ended);
  TextSearch other(config, {{1, 2}}, kSearchVocabulary);
  other.advance(row({{5, 0.2}, {6, 0.3}, {kEndId, 0.5}}));
  other.advance(rows({row({{7, 1.0}}), row({{8, 1.0}})}));
  EXPECT_TRUE(other.results()[0].ended);
  EXPECT_TRUE(other.results()[0].tokens.empty());
  // Ranks are those of all continuations, end tokens too: end 0.3, 7 0.2, end 0.15, 8 0.15. The second end token is
  // looked at and is the third.
  TextSearch third(config, {{1, 3}}, kSearchVocabulary);
  third.advance(row({{5, 0.5}, {6, 0.3}, {8, 0.2}}));
  third.advance(rows({row({{kEndId, 0.6}, {7, 0.4}}), row({{kEndId, 0.5}, {8, 0.5}})}));
  EXPECT_FALSE(third.done());
}

TEST(Search, MinimumAndMaximumOfNewTokens) {
  for (const int64_t beams : {1, 2}) {
    SearchConfig config;
    config.beams = beams;
    config.min_new_tokens = 2;
    TextSearch search(config, {{1, 4}}, kSearchVocabulary);
    const std::vector<float> ends = row({{kEndId, 0.9}, {5, 0.05}, {6, 0.04}, {7, 0.01}});
    for (int step = 0; !search.done(); ++step) {
      ASSERT_LT(step, 4);
      search.advance(rows(std::vector<std::vector<float>>(static_cast<size_t>(beams), ends)));
    }
    EXPECT_EQ(search.results()[0].tokens, (std::vector<int32_t>{5, 5}));
    EXPECT_TRUE(search.results()[0].ended);
  }
}

TEST(Search, ASampleWithoutRoomIsDoneAtOnce) {
  TextSearch search({}, {{30, 0}}, kSearchVocabulary);
  EXPECT_TRUE(search.done());
  EXPECT_TRUE(search.results()[0].tokens.empty());
  EXPECT_FALSE(search.results()[0].ended);
}

TEST(Search, RefusesWhatCannotBe) {
  SearchConfig config;
  config.beams = 7;
  EXPECT_TRUE(throws_error(
      [&] {
        TextSearch(config, {{1, 2}}, kSearchVocabulary);
      },
      ErrorKind::kInvalidArgument, {"search: ", "at least twice as large", "7 beams, 12 tokens"}));
  config.beams = 0;
  EXPECT_TRUE(throws_error(
      [&] {
        TextSearch(config, {{1, 2}}, kSearchVocabulary);
      },
      ErrorKind::kInvalidArgument, {"beams must be 1 and up"}));
  config.beams = 2;
  config.length_penalty = std::nan("");
  EXPECT_TRUE(throws_error(
      [&] {
        TextSearch(config, {{1, 2}}, kSearchVocabulary);
      },
      ErrorKind::kInvalidArgument, {"length_penalty must be finite"}));
  config.length_penalty = 1;
  TextSearch search(config, {{1, 3}}, kSearchVocabulary);
  EXPECT_TRUE(throws_error([&] { search.advance(std::vector<float>(5)); }, ErrorKind::kInvalidArgument,
                           {"logits of 2 rows or 1 samples", "got 5"}));
  EXPECT_TRUE(throws_error([&] { search.results(); }, ErrorKind::kInvalidArgument, {"once all samples are done"}));
  std::vector<float> bad = row({{5, 1.0}});
  bad[3] = std::nanf("");
  EXPECT_TRUE(throws_error([&] { search.advance(bad); }, ErrorKind::kNonFinite, {"logits must be finite", "row 0"}));
}

}  // namespace
}  // namespace permafrost
