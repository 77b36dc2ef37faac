// Accuracy of answers: by hand, and against the official VQA evaluation.
#include <gtest/gtest.h>

#include "data/files/json_file.h"
#include "data/metrics/metric_names.h"
#include "data/metrics/vqa.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

using Answers = std::vector<std::string>;

TEST(VqaNormalisation, IsTheOfficialOne) {
  const Json golden = parse_json_file(golden_path("metrics.json"))["vqa"]["normalised"];
  ASSERT_GT(golden.size(), 150u);
  for (const Json& pair : golden)
    EXPECT_EQ(normalize_vqa_answer(pair[0].get<std::string>()), pair[1].get<std::string>()) << pair[0];
}

TEST(VqaNormalisation, KeepsThePublishedSlips) {
  EXPECT_EQ(normalize_vqa_answer("The two dogs"), "2 dogs");
  EXPECT_EQ(normalize_vqa_answer("a-b"), "b") << "the hyphen is a space, and then the article goes";
  EXPECT_EQ(normalize_vqa_answer("a- b"), "b");
  EXPECT_EQ(normalize_vqa_answer("x- y-z"), "x yz") << "a hyphen beside a space takes all hyphens away";
  EXPECT_EQ(normalize_vqa_answer("1,000-x"), "1000x") << "so does a comma between digits";
  EXPECT_EQ(normalize_vqa_answer("3.5 or .5."), "3.5 or .5");
  EXPECT_EQ(normalize_vqa_answer(std::string(40, '.')), std::string(8, '.')) << "32 at most";
  EXPECT_EQ(normalize_vqa_answer("none"), "0");
  EXPECT_EQ(normalize_vqa_answer("DONT"), "don't");
  EXPECT_EQ(normalize_vqa_answer("somebody'd"), "somebodyd");
  EXPECT_EQ(normalize_vqa_answer(""), "");
  EXPECT_EQ(clean_vqa_answer(" a\nb\tc "), "a b c");
}

TEST(VqaAccuracy, IsTheOfficialOne) {
  const Json golden = parse_json_file(golden_path("metrics.json"))["vqa"];
  const Json &questions = golden["annotations"]["annotations"], &expected = golden["scores"]["questions"];
  ASSERT_EQ(questions.size(), golden["results"].size());
  int between = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    Answers answers;
    for (const Json& answer : questions[i]["answers"]) answers.push_back(answer["answer"]);
    const double accuracy = vqa_accuracy(golden["results"][i]["answer"].get<std::string>(), answers);
    // In percent and rounded to six decimals by the official script.
    EXPECT_NEAR(100 * accuracy, expected[i].get<double>(), 0.5000001e-6) << questions[i];
    between += accuracy > 0 && accuracy < 1;
  }
  EXPECT_GT(between, 5) << "the golden must hold accuracies besides 0 and 1";
}

TEST(VqaAccuracy, ByHand) {
  Answers answers(10, "cat");
  EXPECT_EQ(vqa_accuracy("cat", answers), 1);
  EXPECT_EQ(vqa_accuracy("Cat", answers), 0) << "where all agree, nothing is normalised";
  answers.back() = "dog";
  EXPECT_EQ(vqa_accuracy("The Cat.", answers), 1);
  EXPECT_NEAR(vqa_accuracy("dog", answers), 0.3, 1e-15)
      << "nine people see one other match, its own sees none: 9 * 1/3 / 10";
  EXPECT_EQ(vqa_accuracy("bird", answers), 0);
  EXPECT_TRUE(throws_error([] { vqa_accuracy("x", {}); }, ErrorKind::kData, {"at least one answer", "none"}));
}

TEST(DirectAnswer, CountsEqualAnswers) {
  const Answers answers{"cat", "cat", "Cat", "dog"};
  EXPECT_EQ(direct_answer_accuracy("cat", answers), 2.0 / 3);
  EXPECT_EQ(direct_answer_accuracy("the cat", answers), 0);
  EXPECT_EQ(direct_answer_accuracy("dog", Answers(10, "dog")), 1);
  EXPECT_TRUE(throws_error([] { direct_answer_accuracy("x", {}); }, ErrorKind::kData, {"at least one answer", "none"}));
}

TEST(SoftLabel, IsTheScoreOfTheAnswer) {
  const std::map<std::string, double> labels{{"two", 0.3}, {"2", 0.9}, {"red", 0.6}};
  EXPECT_EQ(soft_label_accuracy(" Two ", labels), 0.9) << "the best of the answers that are equal once normalised";
  EXPECT_EQ(soft_label_accuracy("red", labels), 0.6);
  EXPECT_EQ(soft_label_accuracy("blue", labels), 0);
  EXPECT_EQ(soft_label_accuracy("red", {}), 0);
}

TEST(ExactMatch, PlainAndNormalised) {
  EXPECT_TRUE(exact_match(" yes", "yes\n"));
  EXPECT_FALSE(exact_match("Yes", "yes"));
  EXPECT_TRUE(normalized_exact_match("The Yes.", "yes"));
  EXPECT_TRUE(normalized_exact_match("1,000", "1000"));
  EXPECT_TRUE(normalized_exact_match("red,white", "redwhite")) << "commas go away, and leave no space";
  EXPECT_FALSE(normalized_exact_match("no", "yes"));
}

TEST(MetricNames, SayWhatIsAbsentAndWhy) {
  EXPECT_EQ(require_metric("BLEU-4"), "bleu_4");
  EXPECT_EQ(require_metric("CIDEr"), "cider");
  EXPECT_EQ(require_metric("rouge_l"), "rouge_l");
  EXPECT_TRUE(
      throws_error([] { require_metric("Meteor"); }, ErrorKind::kNotBuilt, {"METEOR is absent", "Java", "cider"}));
  EXPECT_TRUE(throws_error([] { require_metric("spice"); }, ErrorKind::kNotBuilt, {"SPICE is absent", "parser"}));
  EXPECT_TRUE(throws_error([] { require_metric("rogue"); }, ErrorKind::kConfig, {"one of bleu_1", "got 'rogue'"}));
  EXPECT_EQ(metric_names().size(), 11u);
  for (const auto& [name, printed] : metric_names()) {
    EXPECT_EQ(require_metric(name), name);
    EXPECT_EQ(require_metric(printed), name);
    EXPECT_EQ(printed_name(name), printed);
  }
  EXPECT_TRUE(throws_error([] { printed_name("BLEU-1"); }, ErrorKind::kInternal, {"require_metric", "got 'BLEU-1'"}));
}

}  // namespace
}  // namespace permafrost::testing
