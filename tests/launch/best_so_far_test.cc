#include "launch/training/best_so_far.h"

#include <gtest/gtest.h>

namespace permafrost {
namespace {

using config::Validation;

TEST(BestSoFar, OfALossTheLowest) {
  std::optional<BestSoFar> best;
  EXPECT_TRUE(take_value(best, Validation::LOSS, "a", 2.0, 10));
  EXPECT_EQ(best, (BestSoFar{"loss", 2.0, 10, 0, "a"}));
  EXPECT_FALSE(take_value(best, Validation::LOSS, "a", 2.5, 20));
  EXPECT_FALSE(take_value(best, Validation::LOSS, "a", 2.0, 30)) << "equal is not better";
  EXPECT_EQ(best, (BestSoFar{"loss", 2.0, 10, 2, "a"}));
  EXPECT_TRUE(take_value(best, Validation::LOSS, "a", 1.5, 40));
  EXPECT_EQ(best, (BestSoFar{"loss", 1.5, 40, 0, "a"}));
}

TEST(BestSoFar, OfEverythingElseTheHighest) {
  for (const auto metric : {Validation::EXACT_MATCH, Validation::CIDER, Validation::BLEU_4, Validation::ROUGE_L,
                            Validation::VQA_ACCURACY, Validation::CLASS_ACCURACY}) {
    std::optional<BestSoFar> best;
    EXPECT_TRUE(take_value(best, metric, "a", 0.0, 1));
    EXPECT_TRUE(take_value(best, metric, "a", 0.25, 2));
    EXPECT_FALSE(take_value(best, metric, "a", 0.125, 3));
    EXPECT_EQ(best, (BestSoFar{metric_name(metric), 0.25, 2, 1, "a"}));
  }
  EXPECT_EQ(metric_name(Validation::CLASS_ACCURACY), "class_accuracy");
}

TEST(BestSoFar, OfAnotherMetricIsForgotten) {
  std::optional<BestSoFar> best = BestSoFar{"loss", 0.5, 10, 4, "a"};
  EXPECT_TRUE(take_value(best, Validation::CLASS_ACCURACY, "a", 0.25, 20));
  EXPECT_EQ(best, (BestSoFar{"class_accuracy", 0.25, 20, 0, "a"}));
}

TEST(BestSoFar, OnOtherDataIsForgotten) {
  std::optional<BestSoFar> best = BestSoFar{"loss", 0.5, 10, 4, "a"};
  EXPECT_TRUE(take_value(best, Validation::LOSS, "b", 0.75, 20));
  EXPECT_EQ(best, (BestSoFar{"loss", 0.75, 20, 0, "b"}));
}

}  // namespace
}  // namespace permafrost
