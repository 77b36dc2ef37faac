// Result and annotation files: every form, what is said of everything that can be wrong, and the scores of both
// together.
#include <gtest/gtest.h>

#include "data/files/json_file.h"
#include "data/files/read_file.h"
#include "data/metrics/annotation_file.h"
#include "data/metrics/metric_names.h"
#include "data/metrics/result_files.h"
#include "data/metrics/score_results.h"
#include "data/metrics/score_text.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

class MetricFiles : public ::testing::Test {
 protected:
  ResultFile results(const std::string& text) const { return read_results(folder_.write("results.json", text)); }
  Annotations annotations(const std::string& text, const std::string& split = "") const {
    return read_annotations(folder_.write("annotations.json", text), split);
  }
  ::testing::AssertionResult refuses_results(const std::string& text, const std::vector<std::string>& parts) const {
    return throws_error([&] { results(text); }, ErrorKind::kData, with_file(parts, "results.json"));
  }
  ::testing::AssertionResult refuses_annotations(const std::string& text, const std::vector<std::string>& parts) const {
    return throws_error([&] { annotations(text); }, ErrorKind::kData, with_file(parts, "annotations.json"));
  }
  ::testing::AssertionResult refuses_scores(const std::string& truth, const std::string& said,
                                            const std::vector<std::string>& parts) const {
    return throws_error([&] { score_results(annotations(truth), results(said)); }, ErrorKind::kData, parts);
  }
  static double value(const ScoreReport& report, std::string_view name) {
    for (const MetricValue& score : report.scores)
      if (score.name == name) return score.value;
    return -1;
  }

  const DataFolder folder_;

 private:
  static std::vector<std::string> with_file(std::vector<std::string> parts, const std::string& file) {
    parts.push_back(file + "]");
    return parts;
  }
};

// --- results ---------------------------------------------------------------------------------------------------------

TEST_F(MetricFiles, WritesWhatItReads) {
  const std::vector<Result> given{{{"17", true}, "A \"dog\"\n\xff"}, {{"-3", true}, ""}, {{"abc", false}, "é"}};
  const auto file = folder_.path() / "written.json";
  write_results(file, ResultKind::kAnswers, given);
  const std::string text = read_text_file(file);
  EXPECT_EQ(
      text,
      "[\n{\"question_id\": 17, \"answer\": \"A \\\"dog\\\"\\n\uFFFD\"},\n{\"question_id\": -3, \"answer\": \"\"},\n"
      "{\"question_id\": \"abc\", \"answer\": \"é\"}\n]\n");
  const ResultFile read = read_results(file);
  EXPECT_EQ(read.kind, ResultKind::kAnswers);
  ASSERT_EQ(read.results.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(read.results[i].id, given[i].id);
    EXPECT_EQ(read.results[i].id.is_number, given[i].id.is_number);
  }
  EXPECT_EQ(read.results[0].text, "A \"dog\"\n\uFFFD");
  write_results(file, ResultKind::kCaptions, std::vector<Result>{{{"5", true}, "a"}});
  EXPECT_EQ(read_text_file(file), "[\n{\"image_id\": 5, \"caption\": \"a\"}\n]\n");
  write_results(file, ResultKind::kCaptions, {});
  EXPECT_EQ(parse_json_file(file).size(), 0u);
}

TEST_F(MetricFiles, RefusesToWriteAnIdTwice) {
  const std::vector<Result> twice{{{"1", true}, "a"}, {{"1", false}, "b"}};
  EXPECT_TRUE(throws_error([&] { write_results(folder_.path() / "x.json", ResultKind::kCaptions, twice); },
                           ErrorKind::kData, {"one entry for each id", "got id 1 twice", "x.json]"}));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "x.json"));
  EXPECT_TRUE(throws_error([&] { write_results(folder_.path() / "no" / "x.json", ResultKind::kCaptions, {}); },
                           ErrorKind::kStorage, {"x.json"}));
}

TEST_F(MetricFiles, RefusesBadResults) {
  EXPECT_TRUE(refuses_results("[]", {"results: at least one entry is expected; got none"}));
  EXPECT_TRUE(
      refuses_results("{\"a\": {\"b\": 1}}", {"either image_id and caption or question_id and answer", "{\"b\":1}"}));
  EXPECT_TRUE(refuses_results("{}", {"a list of entries is expected; got an object"}));
  EXPECT_TRUE(refuses_results("5", {"a list or an object is expected; got a number"}));
  EXPECT_TRUE(refuses_results("[5]", {"either image_id and caption", "got 5"}));
  EXPECT_TRUE(refuses_results("[{\"image_id\": 1, \"caption\": \"a\"},\n {\"image_id\": 2, \"caption\": \"b\"",
                              {"well-formed JSON", "line 2, column"}));
  EXPECT_TRUE(refuses_results("", {"well-formed JSON", "line 1, column 1"}));
  EXPECT_TRUE(
      refuses_results("[{\"image_id\": 1, \"caption\": 5}]", {"a text 'caption' in each entry", "\"caption\":5"}));
  EXPECT_TRUE(refuses_results("[{\"question_id\": 1, \"answer\": null}]", {"a text 'answer' in each entry"}));
  EXPECT_TRUE(refuses_results("[{\"image_id\": 1.5, \"caption\": \"a\"}]", {"a whole number or a text 'image_id'"}));
  EXPECT_TRUE(refuses_results("[{\"image_id\": \"\", \"caption\": \"a\"}]", {"a whole number or a text 'image_id'"}));
  EXPECT_TRUE(refuses_results("[{\"image_id\": 7, \"caption\": \"a\"}, {\"image_id\": 7, \"caption\": \"b\"}]",
                              {"one entry for each id", "got id 7 twice"}));
  EXPECT_TRUE(refuses_results("[{\"image_id\": 1, \"caption\": \"a\"}, {\"question_id\": 2, \"answer\": \"b\"}]",
                              {"one kind of entry (the first ones are captions)", "\"question_id\":2"}));
  EXPECT_TRUE(throws_error([&] { read_results(folder_.path() / "missing.json"); }, ErrorKind::kData, {"missing.json"}));
}

// --- annotations -----------------------------------------------------------------------------------------------------

constexpr char kCoco[] = R"({"info": {"year": 2017}, "licenses": [{"id": 1, "name": "x"}],
  "annotations": [{"id": 1, "image_id": 20, "caption": "a dog"}, {"id": 2, "image_id": 10, "caption": "a cat"},
                  {"id": 3, "image_id": 20, "caption": "the dog"}],
  "images": [{"id": 10, "file_name": "a.jpg"}, {"id": 20}, {"id": 30}]})";

TEST_F(MetricFiles, ReadsCocoCaptions) {
  const Annotations read = annotations(kCoco);
  EXPECT_EQ(read.kind, AnnotationKind::kCocoCaptions);
  ASSERT_EQ(read.images.size(), 3u);
  EXPECT_EQ(read.images[0].id.text, "10");
  EXPECT_EQ(read.images[1].captions, (std::vector<std::string>{"a dog", "the dog"}));
  EXPECT_TRUE(read.images[2].captions.empty());
}

TEST_F(MetricFiles, ReadsKarpathyCaptionsBySplit) {
  const std::string file = R"({"dataset": "coco", "images": [
    {"cocoid": 5, "imgid": 0, "split": "restval", "sentences": [{"raw": "a dog", "tokens": ["a", "dog"]}]},
    {"cocoid": 6, "imgid": 1, "split": "test", "sentences": [{"raw": "a cat"}, {"raw": "one cat"}]},
    {"imgid": 2, "split": "train", "sentences": [{"raw": "a bird"}]}]})";
  EXPECT_EQ(annotations(file).images.size(), 3u);
  const Annotations train = annotations(file, "train");
  EXPECT_EQ(train.kind, AnnotationKind::kKarpathyCaptions);
  ASSERT_EQ(train.images.size(), 2u);
  EXPECT_EQ(train.images[0].id.text, "5");
  EXPECT_EQ(train.images[1].id.text, "2");
  EXPECT_EQ(annotations(file, "test").images[0].captions, (std::vector<std::string>{"a cat", "one cat"}));
  EXPECT_TRUE(throws_error([&] { annotations(file, "val"); }, ErrorKind::kData,
                           {"images of split 'val'", "the file has: test, train"}));
  EXPECT_TRUE(throws_error([&] { annotations(kCoco, "val"); }, ErrorKind::kConfig,
                           {"only a Karpathy file has splits", "'val' for COCO captions"}));
}

TEST_F(MetricFiles, NumbersKarpathyImagesAsTheDatasetDoes) {
  const Annotations read = annotations(R"({"images": [
    {"split": "val", "imgid": 70, "sentences": []}, {"split": "train", "imgid": 71, "cocoid": 5, "sentences": []},
    {"split": "train", "imgid": 72, "sentences": []}, {"split": "train", "sentences": [{"raw": "D"}]}]})",
                                       "train");
  ASSERT_EQ(read.images.size(), 3u);
  EXPECT_EQ(read.images[0].id.text, "5");
  EXPECT_EQ(read.images[1].id.text, "72");
  EXPECT_EQ(read.images[2].id.text, "3") << "its place in the file";
  EXPECT_TRUE(read.images[2].id.is_number);
}

TEST_F(MetricFiles, ImagesBesideQuestionsAreNotAnnotated) {
  const Annotations read =
      annotations(R"({"images": [{"id": 1}, {"id": 1}], "questions": [{"question_id": 1, "answers": ["a"]}]})");
  EXPECT_EQ(read.kind, AnnotationKind::kQuestions);
  EXPECT_TRUE(read.images.empty());
  ASSERT_EQ(read.questions.size(), 1u);
  EXPECT_EQ(read.questions[0].id.text, "1");
}

TEST_F(MetricFiles, ReadsQuestionsOfEveryForm) {
  const Annotations vqa = annotations(R"({"data_type": "x", "annotations": [{"question_id": 9, "image_id": 1,
    "question_type": "what", "answer_type": "other", "multiple_choice_answer": "dog",
    "answers": [{"answer": "dog", "answer_confidence": "yes", "answer_id": 1}, {"answer": "a dog", "answer_id": 2}]}]})");
  EXPECT_EQ(vqa.kind, AnnotationKind::kVqa);
  ASSERT_EQ(vqa.questions.size(), 1u);
  EXPECT_EQ(vqa.questions[0].answers, (std::vector<std::string>{"dog", "a dog"}));
  EXPECT_EQ(vqa.questions[0].answer_type, "other");
  EXPECT_EQ(vqa.questions[0].question_type, "what");

  const Annotations aokvqa =
      annotations(R"([{"split": "val", "question_id": "Ab", "direct_answers": ["x", "y"], "choices": ["x"]}])");
  EXPECT_EQ(aokvqa.kind, AnnotationKind::kAokvqa);
  EXPECT_EQ(aokvqa.questions[0].id.text, "Ab");
  EXPECT_EQ(aokvqa.questions[0].answers.size(), 2u);

  const Annotations open =
      annotations(R"({"info": "x", "questions": [{"question_id": "q", "image_id": 1, "answers": ["x", "x"]}]})");
  EXPECT_EQ(open.kind, AnnotationKind::kQuestions);
  EXPECT_EQ(open.questions[0].answers, (std::vector<std::string>{"x", "x"}));

  const Annotations gqa =
      annotations(R"({"05515938": {"question": "Is it?", "answer": "yes", "imageId": "n1", "types": {"a": "b"}},
    "1": {"question": "?", "answer": "red"}})");
  EXPECT_EQ(gqa.kind, AnnotationKind::kGqa);
  ASSERT_EQ(gqa.questions.size(), 2u);
  EXPECT_EQ(gqa.questions[0].id.text, "05515938");
  EXPECT_EQ(gqa.questions[1].answers, (std::vector<std::string>{"red"}));

  const Annotations vlt5 =
      annotations(R"([{"question_id": 4, "img_id": "COCO_1", "sent": "?", "label": {"red": 1.0, "pink": 0.3},
    "answer_type": "other", "question_type": "what color"}, {"question_id": 5, "label": {}}])");
  EXPECT_EQ(vlt5.kind, AnnotationKind::kVlt5);
  EXPECT_EQ(vlt5.questions[0].labels.at("pink"), 0.3);
  EXPECT_TRUE(vlt5.questions[1].labels.empty()) << "people did not agree";
}

TEST_F(MetricFiles, RefusesBadAnnotations) {
  EXPECT_TRUE(refuses_annotations("", {"well-formed JSON", "line 1, column 1"}));
  EXPECT_TRUE(refuses_annotations("{\n\"annotations\": [}", {"well-formed JSON", "line 2, column 17"}));
  EXPECT_TRUE(refuses_annotations("{}", {"captions of images or answers to questions", "an empty file"}));
  EXPECT_TRUE(refuses_annotations("[]", {"got an empty file"}));
  EXPECT_TRUE(refuses_annotations(R"({"images": [{"id": 1}], "annotations": []})", {"got none"}));
  EXPECT_TRUE(refuses_annotations(R"({"annotations": [{"id": 1, "bbox": [1]}]})", {"an annotation", "\"bbox\":[1]"}));
  EXPECT_TRUE(refuses_annotations("[7]", {"an annotation", "got 7"}));
  EXPECT_TRUE(refuses_annotations("5", {"a list or an object is expected; got a number"}));
  EXPECT_TRUE(refuses_annotations(R"({"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": 5}]})",
                                  {"a text 'caption'", "\"caption\":5"}));
  EXPECT_TRUE(refuses_annotations(R"({"images": [{"id": 1}], "annotations": [{"image_id": 2, "caption": "a"}]})",
                                  {"must name a listed image", "image_id 2", "among 1 images"}));
  EXPECT_TRUE(
      refuses_annotations(R"({"images": [{"id": 1}, {"id": 1}], "annotations": [{"image_id": 1, "caption": "a"}]})",
                          {"ids must be unique", "id 1 twice"}));
  EXPECT_TRUE(refuses_annotations(R"({"questions": [{"question_id": 8, "answers": []}]})",
                                  {"at least one answer", "none for question 8"}));
  EXPECT_TRUE(refuses_annotations(R"({"questions": [{"question_id": 8, "question": "?"}]})", {"a list 'answers'"}));
  EXPECT_TRUE(
      refuses_annotations(R"({"questions": [{"question_id": 8, "answers": [5]}]})", {"texts in the list of answers"}));
  EXPECT_TRUE(
      refuses_annotations(R"({"annotations": [{"question_id": 8, "answers": [{"text": "a"}]}]})", {"a text 'answer'"}));
  EXPECT_TRUE(refuses_annotations(R"([{"question_id": 8, "label": ["a"]}])", {"an object 'label'"}));
  EXPECT_TRUE(
      refuses_annotations(R"([{"question_id": 8, "label": {"a": "b"}}])", {"a number for each answer in 'label'"}));
  EXPECT_TRUE(
      refuses_annotations(R"([{"question_id": 8, "label": {"a": 1}}, {"question_id": 9, "direct_answers": ["a"]}])",
                          {"one kind of annotation (the first ones are VL-T5 questions)", "\"question_id\":9"}));
  EXPECT_TRUE(refuses_annotations(
      R"({"images": [{"split": "test", "imgid": 1}, {"split": "test", "imgid": 2, "sentences": 5}]})",
      {"a list 'sentences'"}));
}

// --- both ------------------------------------------------------------------------------------------------------------

TEST_F(MetricFiles, ScoresCaptionsAsTheCocoTools) {
  const Json golden = parse_json_file(golden_path("metrics.json"))["coco"];
  const ScoreReport report =
      score_results(annotations(json_text(golden["annotations"])), results(json_text(golden["results"])));
  const Json& expected = golden["scores"];
  EXPECT_EQ(report.items, static_cast<int64_t>(golden["results"].size()));
  EXPECT_EQ(report.annotated, static_cast<int64_t>(golden["annotations"]["images"].size()));
  const auto near = [&](const char* name, double theirs) {
    EXPECT_NEAR(value(report, name) / theirs, 1, 1e-12) << name;  // bound: metrics_captions_test.cc
  };
  near("bleu_1", expected["bleu"][0]);
  near("bleu_2", expected["bleu"][1]);
  near("bleu_3", expected["bleu"][2]);
  near("bleu_4", expected["bleu"][3]);
  near("rouge_l", expected["rouge_l"]);
  near("cider", expected["cider"]);
}

TEST_F(MetricFiles, ScoresAnswersAsTheVqaTools) {
  const Json golden = parse_json_file(golden_path("metrics.json"))["vqa"];
  const ScoreReport report =
      score_results(annotations(json_text(golden["annotations"])), results(json_text(golden["results"])));
  constexpr double kRounding = 0.5000001e-6;  // percent, six decimals
  EXPECT_NEAR(100 * value(report, "vqa_accuracy"), golden["scores"]["overall"].get<double>(), kRounding);
  EXPECT_EQ(report.groups.size(), golden["scores"]["answer_type"].size() + golden["scores"]["question_type"].size());
  int64_t items = 0;
  for (const ScoreGroup& group : report.groups) {
    EXPECT_NEAR(100 * group.value, golden["scores"][std::string(group.by)][group.name].get<double>(), kRounding)
        << group.name;
    items += group.items;
  }
  EXPECT_EQ(items, 2 * report.items) << "each question has an answer type and a question type";
}

TEST_F(MetricFiles, ScoresTheOtherKinds) {
  const std::string two = R"([{"question_id": "a", "answer": "The Dog"}, {"question_id": "b", "answer": "cat"}])";
  const ScoreReport gqa =
      score_results(annotations(R"({"a": {"answer": "dog"}, "b": {"answer": "cat"}})"), results(two));
  EXPECT_EQ(value(gqa, "normalized_exact_match"), 1);
  EXPECT_EQ(value(gqa, "exact_match"), 0.5);
  const ScoreReport one = score_results(
      annotations(
          R"({"questions": [{"question_id": "a", "answers": ["dog"]}, {"question_id": "b", "answers": ["cat"]}]})"),
      results(two));
  EXPECT_EQ(value(one, "exact_match"), 0.5) << "of one answer, leave-one-out would leave none";
  EXPECT_EQ(value(one, "vqa_accuracy"), -1);
  const ScoreReport several = score_results(
      annotations(
          R"([{"question_id": "a", "direct_answers": ["dog", "dog", "a dog", "dog"]}, {"question_id": "b", "direct_answers": ["cat", "cat"]}])"),
      results(two));
  EXPECT_EQ(value(several, "direct_answer"), (0 + 2.0 / 3) / 2);
  EXPECT_NEAR(value(several, "vqa_accuracy"), (1 + 1.0 / 3) / 2, 1e-15);
  const ScoreReport soft = score_results(
      annotations(
          R"([{"question_id": "a", "label": {"dog": 0.6}}, {"question_id": "b", "label": {"cat": 0, "kitten": 1}}])"),
      results(two));
  EXPECT_EQ(value(soft, "soft_label"), 0.3);
  EXPECT_EQ(value(soft, "normalized_exact_match"), 0.5) << "a label of 0 is no match";
}

TEST_F(MetricFiles, RefusesWhatDoesNotBelongTogether) {
  EXPECT_TRUE(refuses_scores(kCoco, R"([{"image_id": 11, "caption": "a"}])",
                             {"every id must be in the annotations", "id 11", "3 COCO captions", "annotations.json]"}));
  EXPECT_TRUE(
      refuses_scores(kCoco, R"([{"image_id": 30, "caption": "a"}])", {"every image must have captions", "image 30"}));
  EXPECT_TRUE(refuses_scores(kCoco, R"([{"question_id": 10, "answer": "a"}])",
                             {"answers need annotations of questions", "got COCO captions"}));
  const std::string questions =
      R"({"questions": [{"question_id": 1, "answers": ["a"]}, {"question_id": 2, "answers": ["b"]}]})";
  EXPECT_TRUE(
      refuses_scores(questions, R"([{"image_id": 1, "caption": "a"}])", {"captions need annotations of images"}));
  const std::string first = R"([{"question_id": 1, "answer": "a"}])";
  EXPECT_TRUE(refuses_scores(questions, first,
                             {"every question must have an answer", "1 answers to 2 questions", "none to question 2"}));
  const ScoreReport partial = score_results(annotations(questions), results(first), /*partial=*/true);
  EXPECT_EQ(partial.items, 1);
  EXPECT_EQ(partial.annotated, 2);
  EXPECT_EQ(value(partial, "exact_match"), 1);
}

TEST_F(MetricFiles, RefusesTwoResultsWithOneId) {
  const std::string questions = R"({"questions": [{"question_id": 1, "answers": ["a"]}]})";
  ResultFile said = results(R"([{"question_id": 1, "answer": "a"}])");
  said.results.push_back({said.results[0].id, "b"});
  EXPECT_TRUE(throws_error([&] { score_results(annotations(questions), said); }, ErrorKind::kData,
                           {"one entry for each id", "id 1 twice", "annotations.json]"}));
}

TEST_F(MetricFiles, NamesTheMetricsThatItGives) {
  const auto names_in = [](const ScoreReport& report) {
    std::vector<std::string_view> names;
    for (const MetricValue& score : report.scores) names.push_back(score.name);
    return names;
  };
  const std::string answer = R"([{"question_id": "a", "answer": "b"}])";
  for (const char* questions :
       {R"({"annotations": [{"question_id": "a", "answers": [{"answer": "b"}]}]})",
        R"([{"question_id": "a", "direct_answers": ["b", "c"]}])", R"([{"question_id": "a", "direct_answers": ["b"]}])",
        R"({"a": {"answer": "b"}})", R"([{"question_id": "a", "label": {"b": 1}}])"}) {
    const Annotations read = annotations(questions);
    EXPECT_EQ(metrics_of(read), names_in(score_results(read, results(answer)))) << questions;
  }
  const Annotations coco = annotations(kCoco);
  EXPECT_EQ(metrics_of(coco), names_in(score_results(coco, results(R"([{"image_id": 20, "caption": "a"}])"))));
}

TEST_F(MetricFiles, TellsScoresToPeopleAndPrograms) {
  const ScoreReport report = score_results(annotations(kCoco), results(R"([{"image_id": 20, "caption": "a dog"}])"));
  const std::string table = score_table(report);
  for (const char* part :
       {"BLEU-4", "ROUGE-L                   100.00\n", "CIDEr", "METEOR                    absent  needs its Java"})
    EXPECT_NE(table.find(part), std::string::npos) << part << " in\n" << table;
  const OrderedJson json = score_json(report);
  EXPECT_EQ(json["annotations"], "COCO captions");
  EXPECT_EQ(json["scored"], 1);
  EXPECT_EQ(json["annotated"], 3);
  EXPECT_EQ(json["scores"]["rouge_l"], 1.0);
  EXPECT_TRUE(json["absent"].contains("SPICE"));
  const std::vector<std::string_view> only{"cider"};
  EXPECT_EQ(score_json(report, only)["scores"].size(), 1u);
  EXPECT_EQ(score_table(report, only),
            "CIDEr                       0.00\n");  // absent ones are not among those asked for
  EXPECT_FALSE(score_json(report, only).contains("absent"));
  ScoreReport part;
  part.scores = {{"cider", 0.5}, {"normalized_exact_match", 0.948}};
  EXPECT_EQ(score_lines(part, "unseen = true"),
            "CIDEr, unseen = true:                    50.00\nnormalized exact match, unseen = true:   94.80\n");
  EXPECT_EQ(score_lines(part, "unseen = true", only), "CIDEr, unseen = true:      50.00\n");
}

TEST_F(MetricFiles, TellsGroupsWhereTheirMetricIsAskedFor) {
  ScoreReport report;
  report.annotations = AnnotationKind::kVqa;
  report.scores = {{"vqa_accuracy", 0.5}, {"direct_answer", 0.25}};
  report.groups = {{"answer_type", "number", 2, 0.75}, {"answer_type", "other", 1, 0}};
  const std::string groups = "VQA accuracy by answer_type\n  number                   75.00  of 2\n";
  const std::vector<std::string_view> first{"vqa_accuracy"}, second{"direct_answer"};
  for (const auto& only : {std::vector<std::string_view>(), first}) {
    EXPECT_NE(score_table(report, only).find(groups), std::string::npos) << score_table(report, only);
    EXPECT_EQ(score_json(report, only)["groups"]["answer_type"]["number"]["vqa_accuracy"], 0.75);
  }
  EXPECT_EQ(score_table(report, second), "direct answer              25.00\n");
  EXPECT_FALSE(score_json(report, second).contains("groups"));
}

}  // namespace
}  // namespace permafrost::testing
