// BLEU, ROUGE-L and CIDEr: by hand, and against the COCO tools' own numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "data/files/json_file.h"
#include "data/metrics/caption_scores.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

// Both sides compute with doubles and sum the same terms in the same order; what differs are the last bits of log, exp
// and pow (one unit each, 2e-16) in products of at most 16 and sums of a few hundred terms, and the order of a sum
// of 49.
constexpr double kRelative = 1e-12;

::testing::AssertionResult same(double ours, double theirs) {
  if (std::abs(ours - theirs) <= kRelative * std::abs(theirs)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << ours << " instead of " << theirs;
}

void expect_same(const CaptionScore& ours, const Json& theirs, const std::string& where) {
  for (size_t n = 0; n < 4; ++n)
    EXPECT_TRUE(same(ours.bleu[n], theirs["bleu"][n].get<double>())) << where << " BLEU-" << n + 1;
  EXPECT_TRUE(same(ours.rouge_l, theirs["rouge_l"].get<double>())) << where << " ROUGE-L";
  EXPECT_TRUE(same(ours.cider, theirs["cider"].get<double>())) << where << " CIDEr";
}

std::vector<CaptionItem> golden_items(const Json& golden) {
  std::vector<CaptionItem> items;
  for (const Json& item : golden["items"])
    items.push_back({item["candidate"], item["references"].get<std::vector<std::string>>()});
  return items;
}

TEST(CaptionScores, AreThoseOfTheCocoTools) {
  const Json golden = parse_json_file(golden_path("metrics.json"))["captions"];
  const std::vector<CaptionItem> items = golden_items(golden);
  ASSERT_GT(items.size(), 40u);
  const CaptionScores scores = score_captions(items);
  expect_same(scores.all, golden["scores"], "all");
  ASSERT_EQ(scores.items.size(), items.size());
  for (size_t i = 0; i < items.size(); ++i)
    expect_same(scores.items[i], golden["scores"]["items"][i], items[i].candidate);
}

TEST(CaptionScores, DoNotDependOnTheOrderOfItems) {
  std::vector<CaptionItem> items = golden_items(parse_json_file(golden_path("metrics.json"))["captions"]);
  const CaptionScores first = score_captions(items);
  std::reverse(items.begin(), items.end());
  const CaptionScores second = score_captions(items);
  EXPECT_EQ(first.all.bleu, second.all.bleu);
  EXPECT_EQ(first.all.rouge_l, second.all.rouge_l);
  EXPECT_EQ(first.all.cider, second.all.cider);
  EXPECT_EQ(first.items[3].cider, second.items[items.size() - 4].cider);
}

TEST(CaptionScores, ByHand) {
  // One of two words right, in a text as long as the reference; no bigram.
  const CaptionScores one = score_tokenized_captions(std::vector<CaptionItem>{{"a dog", {"a cat"}}});
  EXPECT_NEAR(one.all.bleu[0], 0.5, 1e-9);
  EXPECT_NEAR(one.all.bleu[1], 0, 1e-6);
  EXPECT_NEAR(one.all.rouge_l, 0.5, 1e-15) << "precision and recall are 1/2 each";
  EXPECT_EQ(one.all.cider, 0) << "every n-gram is in all documents";
  EXPECT_EQ(one.candidate_tokens, 2);
  EXPECT_EQ(one.reference_tokens, 2);

  // Clipping: five times "a" against two.
  const CaptionScores clipped = score_tokenized_captions(std::vector<CaptionItem>{{"a a a a a", {"a b a"}}});
  EXPECT_NEAR(clipped.all.bleu[0], 0.4, 1e-9);

  // Brevity: half as long, everything right; the closest reference counts.
  const CaptionScores brief = score_tokenized_captions(std::vector<CaptionItem>{{"a b", {"a b c d", "a b c d e f"}}});
  EXPECT_NEAR(brief.all.bleu[0], std::exp(-1), 1e-8);
  EXPECT_EQ(brief.reference_tokens, 4);

  // Equally close: the shorter one.
  EXPECT_EQ(score_tokenized_captions(std::vector<CaptionItem>{{"a b", {"a b c", "a"}}}).reference_tokens, 1);

  // CIDEr of two items that share nothing, each equal to its reference: cosine 1 for all four orders, times 10.
  const CaptionScores equal =
      score_tokenized_captions(std::vector<CaptionItem>{{"a b c d", {"a b c d"}}, {"e f g h", {"e f g h"}}});
  EXPECT_NEAR(equal.all.cider, 10, 1e-12);
  // The length penalty: the same, but the second candidate lacks words. Unigrams: two of four weights, each ln 2, so
  // cosine = 2 / (sqrt 2 * sqrt 4); bigrams: one of three, 1 / sqrt 3; the rest 0. Two bigrams fewer.
  const CaptionScores shorter =
      score_tokenized_captions(std::vector<CaptionItem>{{"a b c d", {"a b c d"}}, {"e f", {"e f g h"}}});
  const double penalty = std::exp(-4.0 / 72);
  EXPECT_NEAR(shorter.items[1].cider, 10 * penalty * (2 / std::sqrt(8.0) + 1 / std::sqrt(3.0)) / 4, 1e-12);
}

TEST(CaptionScores, RefuseWhatCannotBeScored) {
  EXPECT_TRUE(throws_error([] { score_captions({}); }, ErrorKind::kData, {"at least one caption", "none"}));
  EXPECT_TRUE(throws_error(
      [] {
        score_captions(std::vector<CaptionItem>{{"a", {"b"}}, {"a", {}}});
      },
      ErrorKind::kData, {"at least one reference", "item 1 of 2"}));
}

TEST(OrderFreeMean, IsTheSameInEveryOrder) {
  std::vector<double> values{1e16, 1, -1e16, 3.5, 1e-3, 7};
  const double first = order_free_mean(values);
  std::sort(values.begin(), values.end(), std::greater<>());
  EXPECT_EQ(order_free_mean(values), first);
  EXPECT_EQ(order_free_mean({}), 0);
}

}  // namespace
}  // namespace permafrost::testing
