// permafrost eval on files: what it prints, and its exit code and words for everything that can be wrong.
#include <fstream>

#include "core/base/json.h"
#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {
namespace {

constexpr char kCaptions[] = R"({"images": [{"id": 1}, {"id": 2}, {"id": 3}], "annotations": [
  {"id": 1, "image_id": 1, "caption": "A brown dog sits on a chair."}, {"id": 2, "image_id": 1, "caption": "A dog on a chair"},
  {"id": 3, "image_id": 2, "caption": "Two boats near the sea"}, {"id": 4, "image_id": 3, "caption": "A kite"}]})";
constexpr char kQuestions[] = R"({"questions": [
  {"question_id": "a1", "image_id": 1, "question": "What?", "answers": ["dog", "dog", "a dog", "cat"], "answer_type": "other"},
  {"question_id": "b2", "image_id": 1, "question": "How many?", "answers": ["2", "two", "2", "2"], "answer_type": "number"}]})";

class EvalFiles : public ::testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& text) const {
    write_file(folder_ / name, text);
    return (folder_ / name).string();
  }
  std::string files(const std::string& results, const std::string& annotations) const {
    return "eval --results " + file("said.json", results) + " --annotations " + file("truth.json", annotations) + " ";
  }
  ScratchFolder folder_;
};

TEST_F(EvalFiles, PrintsATable) {
  const std::string two =
      R"([{"image_id": 2, "caption": "Two boats near the sea"}, {"image_id": 1, "caption": "A dog on a chair"}])";
  const Outcome outcome = run(files(two, kCaptions));
  EXPECT_TRUE(ends(outcome, 0,
                   {"said.json (2 captions)", "truth.json (COCO captions)", "2 of 3 images",
                    "BLEU-1                    100.00", "CIDEr", "METEOR                    absent", "SPICE "}));
  EXPECT_EQ(run(files(two, kCaptions)).output, outcome.output) << "the same every time";
}

TEST_F(EvalFiles, WritesJson) {
  const std::string two = R"([{"question_id": "a1", "answer": "Dog."}, {"question_id": "b2", "answer": "3"}])";
  const Outcome outcome = run(files(two, kQuestions) + "--json");
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  const Json json = parse_json(outcome.output);
  EXPECT_EQ(json["annotations"], "questions with answers");
  EXPECT_EQ(json["scored"], 2);
  EXPECT_NEAR(json["scores"]["vqa_accuracy"].get<double>(), (3 * 2.0 / 3 + 1) / 4 / 2, 1e-15);
  EXPECT_EQ(json["scores"]["direct_answer"], 0.0);
  EXPECT_EQ(json["groups"]["answer_type"]["number"], (Json{{"items", 1}, {"vqa_accuracy", 0.0}}));
  EXPECT_FALSE(json.contains("absent"));
}

TEST_F(EvalFiles, PrintsTheMetricsAskedFor) {
  const std::string one = R"([{"image_id": 1, "caption": "A dog on a chair"}])";
  const Outcome outcome = run(files(one, kCaptions) + "--json --metrics ROUGE-L,bleu_4");
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_EQ(parse_json(outcome.output)["scores"].size(), 2u);
  EXPECT_TRUE(
      ends(run(files(one, kCaptions) + "--metrics METEOR"), 7, {"METEOR is absent: it needs its Java program"}));
  EXPECT_TRUE(ends(run(files(one, kCaptions) + "--metrics spice"), 7, {"SPICE is absent"}));
  EXPECT_TRUE(ends(run(files(one, kCaptions) + "--metrics best"), 2, {"one of bleu_1", "got 'best'"}));
  EXPECT_TRUE(ends(run(files(one, kCaptions) + "--metrics vqa_accuracy"), 2,
                   {"COCO captions have the metrics bleu_1", "got --metrics vqa_accuracy"}));
}

TEST_F(EvalFiles, RefusesBadFilesWithTheCodeOfData) {
  const auto refused = [&](const std::string& results, const std::string& annotations,
                           const std::vector<std::string>& parts) {
    return ends(run(files(results, annotations)), 3, parts);
  };
  EXPECT_TRUE(
      refused(R"([{"image_id": 9, "caption": "a"}])", kCaptions, {"id 9, which is not among 3", "truth.json]"}));
  EXPECT_TRUE(refused(R"([{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}])", kCaptions,
                      {"id 1 twice", "said.json]"}));
  EXPECT_TRUE(refused("[]", kCaptions, {"at least one entry is expected; got none"}));
  EXPECT_TRUE(refused("[\n{", kCaptions, {"line 2, column", "said.json]"}));
  EXPECT_TRUE(refused(R"([{"image_id": 1, "caption": 4}])", kCaptions, {"a text 'caption'"}));
  EXPECT_TRUE(refused(R"([{"image_id": 1, "caption": "a"}, {"question_id": 1, "answer": "b"}])", kCaptions,
                      {"one kind of entry"}));
  EXPECT_TRUE(refused(R"([{"image_id": 1, "caption": "a"}])", "", {"line 1, column 1", "truth.json]"}));
  EXPECT_TRUE(refused(R"([{"image_id": 1, "caption": "a"}])", "{}", {"got an empty file"}));
  EXPECT_TRUE(refused(R"([{"image_id": 1, "caption": "a"}])", kQuestions, {"captions need annotations of images"}));
  EXPECT_TRUE(refused(R"([{"question_id": "a1", "answer": "x"}])", kQuestions,
                      {"1 answers to 2 questions", "none to question b2"}));
  EXPECT_TRUE(refused(R"([{"question_id": "a1", "answer": "x"}])",
                      R"({"questions": [{"question_id": "a1", "answers": []}]})",
                      {"at least one answer; got none for question a1"}));
  EXPECT_TRUE(
      ends(run(files(R"([{"question_id": "a1", "answer": "x"}])", kQuestions) + "--partial"), 0, {"1 of 2 questions"}));
  EXPECT_TRUE(ends(run("eval --results /none/a.json --annotations /none/b.json"), 3, {"/none/a.json"}));
}

TEST_F(EvalFiles, RefusesOptionsThatDoNotFit) {
  const std::string one = R"([{"image_id": 1, "caption": "a dog"}])";
  EXPECT_TRUE(ends(run("eval"), 2, {"a CONFIG, or both --results and --annotations", "got neither"}));
  EXPECT_TRUE(ends(run("eval --results x.json"), 2, {"got --results alone"}));
  EXPECT_TRUE(ends(run("eval --annotations x.json"), 2, {"got --annotations alone"}));
  EXPECT_TRUE(ends(run(files(one, kCaptions) + "config.textproto"), 2, {"either a CONFIG or", "got both"}));
  for (const std::string option : {"--out", "--adapter", "--set"})
    EXPECT_TRUE(ends(run(files(one, kCaptions) + option + " x=1"), 2, {option + " is for a CONFIG"}));
  EXPECT_TRUE(ends(run(files(one, kCaptions) + "--split test"), 2, {"only a Karpathy file has splits"}));
}

}  // namespace
}  // namespace permafrost
