#include <map>
#include <memory>

#include "data/datasets/sample_id.h"
#include "data/datasets/vqa_dataset.h"
#include "data/loader/loader.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

using Answers = std::vector<std::pair<std::string, float>>;

Answers answers_of(const Sample& sample) {
  Answers answers;
  for (const Answer& answer : sample.answers) answers.emplace_back(answer.text, answer.score);
  return answers;
}

constexpr char kQuestions[] = R"({"info": {}, "data_subtype": "train2014", "questions": [
  {"image_id": 42, "question": "What is it?", "question_id": 42000}, {"image_id": 7, "question": "How many?", "question_id": 7001},
  {"image_id": 42, "question": "Why", "question_id": 42001}]})";
constexpr char kAnnotations[] = R"({"annotations": [
  {"question_id": 7001, "answers": [{"answer": "2"}, {"answer": "3"}, {"answer": "2"}, {"answer": "2"}]},
  {"question_id": 42001, "answers": [{"answer": "yes"}, {"answer": "yes"}, {"answer": "yes"}, {"answer": "yes"}, {"answer": "yes"}]},
  {"question_id": 42000, "answers": [{"answer": "a dog"}, {"answer": "cat"}, {"answer": "cat"}]}]})";

class VqaFiles : public ::testing::Test {
 protected:
  VqaDatasetConfig config(VqaFormat format, std::string_view questions, std::string_view annotations = "") const {
    VqaDatasetConfig config;
    config.format = format;
    config.questions = folder_.write("q.json", questions);
    if (!annotations.empty()) config.annotations = folder_.write("a.json", annotations);
    config.images = "images";
    config.missing_images = MissingImages::kKeep;
    return config;
  }
  ::testing::AssertionResult refused(VqaFormat format, std::string_view questions,
                                     const std::vector<std::string>& parts, std::string_view annotations = "") const {
    const VqaDatasetConfig with = config(format, questions, annotations);
    return throws_error([&] { VqaDataset::load(with); }, ErrorKind::kData, parts);
  }
  DataFolder folder_;
};

TEST_F(VqaFiles, Vqav2) {
  const VqaDataset dataset = VqaDataset::load(config(VqaFormat::kVqav2, kQuestions, kAnnotations));
  ASSERT_EQ(dataset.size(), 3);
  EXPECT_EQ(dataset.images(), 2);
  EXPECT_EQ(dataset.sample(0).id, 42000u);
  EXPECT_EQ(dataset.sample(0).question, "What is it?");
  EXPECT_EQ(answers_of(dataset.sample(0)), (Answers{{"a dog", 0.3f}, {"cat", 0.6f}}));
  EXPECT_EQ(answers_of(dataset.sample(1)), (Answers{{"2", 0.9f}, {"3", 0.3f}}));
  EXPECT_EQ(answers_of(dataset.sample(2)), (Answers{{"yes", 1.0f}}));
  EXPECT_EQ(dataset.sample(2).image, dataset.sample(0).image);
  EXPECT_EQ(dataset.image_id(dataset.sample(1).image), 7u);
  EXPECT_EQ(dataset.image_name(dataset.sample(0).image), "images/COCO_train2014_000000000042.jpg");
  EXPECT_EQ(sample_name(dataset.sample(1)), "7001");
  VqaDatasetConfig other = config(VqaFormat::kVqav2, kQuestions);
  other.image_name = "val/%d.png";
  const VqaDataset questions = VqaDataset::load(other);
  EXPECT_TRUE(questions.sample(1).answers.empty());
  EXPECT_EQ(questions.image_name(0), "images/val/42.png");
}

TEST_F(VqaFiles, Vqav2Errors) {
  EXPECT_TRUE(refused(VqaFormat::kVqav2, kQuestions,
                      {"every annotation must belong to a listed question", "question 5", "a.json"},
                      R"({"annotations": [{"question_id": 5, "answers": [{"answer": "x"}]}]})"));
  EXPECT_TRUE(refused(VqaFormat::kVqav2, kQuestions,
                      {"every question must have an annotation; got none of question 42000", "q.json", "a.json"},
                      R"({"annotations": [{"question_id": 7001, "answers": [{"answer": "x"}]}]})"));
  EXPECT_TRUE(
      refused(VqaFormat::kVqav2, kQuestions, {"got two of question 7001"},
              R"({"annotations": [{"question_id": 7001, "answers": []}, {"question_id": 7001, "answers": []}]})"));
  EXPECT_TRUE(refused(VqaFormat::kVqav2, kQuestions, {"each annotation must have a list 'answers'"},
                      R"({"annotations": [{"question_id": 7001}]})"));
  EXPECT_TRUE(refused(VqaFormat::kVqav2, kQuestions, {"the list 'annotations' is expected"}, R"({"questions": []})"));
  EXPECT_TRUE(refused(VqaFormat::kVqav2, R"({"questions": []})", {"at least one question"}));
  EXPECT_TRUE(refused(VqaFormat::kVqav2, "[]", {"the list 'questions' is expected; got array"}));
  EXPECT_TRUE(refused(VqaFormat::kVqav2, R"({"questions": [{"question_id": 1, "image_id": 2, "question": "x"}]})",
                      {"'data_subtype' is expected", "data.image_name"}));
  EXPECT_TRUE(refused(VqaFormat::kVqav2,
                      R"({"data_subtype": "x", "questions": [{"question_id": 1, "image_id": 2, "question": ""}]})",
                      {"a question with text is expected; got none in question 1"}));
  EXPECT_TRUE(refused(VqaFormat::kVqav2,
                      R"({"data_subtype": "x", "questions": [{"question_id": 1, "image_id": 2, "question": "a"},
                          {"question_id": 1, "image_id": 2, "question": "b"}]})",
                      {"question ids must be unique; got id 1 twice"}));
  VqaDatasetConfig bad = config(VqaFormat::kVqav2, kQuestions);
  bad.image_name = "image.jpg";
  EXPECT_TRUE(throws_error([&] { VqaDataset::load(bad); }, ErrorKind::kConfig, {"one of %s, %d, %012d", "image.jpg"}));
  bad.image_name = "%d";
  bad.missing_images = MissingImages::kFail;
  bad.images = folder_.path();
  EXPECT_TRUE(throws_error([&] { VqaDataset::load(bad); }, ErrorKind::kData, {"got 2 of 2 missing", "42"}));
}

TEST_F(VqaFiles, EntriesThatAreNoObjects) {
  const std::string vqa = R"({"question_id": 1, "image_id": 2, "question": "x"})",
                    vlt5 = R"({"question_id": 1, "img_id": "2", "sent": "x"})";
  for (const std::string entry : {"5", "null", "[]", "[7]"}) {
    const std::vector<std::string> parts{"each question must have a", "got " + entry, "q.json"};
    EXPECT_TRUE(
        refused(VqaFormat::kVqav2, concat(R"({"data_subtype": "x", "questions": [)", vqa, ", ", entry, "]}"), parts));
    EXPECT_TRUE(refused(VqaFormat::kAokvqa, concat("[", vqa, ", ", entry, "]"), parts));
    EXPECT_TRUE(refused(VqaFormat::kAokvqa, concat(R"({"questions": [)", entry, ", ", vqa, "]}"), parts));
    EXPECT_TRUE(refused(VqaFormat::kVlt5, concat("[", entry, ", ", vlt5, "]"), parts));
    EXPECT_TRUE(refused(VqaFormat::kVqav2, kQuestions,
                        {"each annotation must have a whole number or a text 'question_id'", "got " + entry, "a.json"},
                        concat(R"({"annotations": [)", entry, "]}")));
    EXPECT_TRUE(refused(VqaFormat::kGqa, concat(R"({"1": {"imageId": "n5", "question": "x"}, "2": )", entry, "}"),
                        entry[0] == '['
                            ? std::vector<std::string>{"questions by id is expected; got array of '2'", "q.json"}
                            : std::vector<std::string>{"each question must have", "got " + entry}));
  }
  EXPECT_EQ(
      VqaDataset::load(config(VqaFormat::kVqav2, R"({"info": [null, [5]], "data_subtype": "x", "licenses": {"a": [1]},
    "questions": [{"question_id": 1, "image_id": 2, "question": "x"}]})"))
          .size(),
      1)
      << "other lists hold anything";
}

TEST_F(VqaFiles, Vlt5) {
  const VqaDataset dataset = VqaDataset::load(config(VqaFormat::kVlt5, R"([
    {"question_id": 458752000, "img_id": "COCO_train2014_000000458752", "sent": "What is this photo taken looking through?",
     "label": {"net": 1, "screen": 0.3, "wall": 0}, "answer_type": "other"},
    {"question_id": "02930152", "img_id": "2370799", "sent": "Is it?", "label": {"yes": 1.0}},
    {"question_id": 3, "img_id": "n161313", "sent": "Empty?", "label": {}},
    {"question_id": 4, "img_id": "COCO_val2014_000000000001", "sent": "None?"}])"));
  ASSERT_EQ(dataset.size(), 4);
  EXPECT_EQ(answers_of(dataset.sample(0)), (Answers{{"net", 1.0f}, {"screen", 0.3f}}));
  EXPECT_EQ(dataset.image_name(0), "images/train2014/COCO_train2014_000000458752.jpg");
  EXPECT_EQ(dataset.image_id(0), 458752u);
  EXPECT_EQ(dataset.image_name(1), "images/VG_100K/2370799.jpg");
  EXPECT_EQ(dataset.sample(1).name, "02930152");  // a zero in front would be lost in a number
  EXPECT_EQ(dataset.image_name(2), "images/n161313.jpg");
  EXPECT_EQ(answers_of(dataset.sample(2)), (Answers{{"", 1.0f}}));
  EXPECT_TRUE(dataset.sample(3).answers.empty());
  EXPECT_EQ(dataset.image_name(3), "images/val2014/COCO_val2014_000000000001.jpg");
  EXPECT_TRUE(refused(VqaFormat::kVlt5, "{}", {"a list of questions is expected; got other keys"}));
  EXPECT_TRUE(refused(VqaFormat::kVlt5, R"([{"question_id": 1, "img_id": "a", "sent": "x", "label": {"y": -1}}])",
                      {"scores of 0 and up in 'label'"}));
  EXPECT_TRUE(refused(VqaFormat::kVlt5, R"([{"question_id": 1, "img_id": "../a", "sent": "x"}])",
                      {"an image id without '/'", "../a"}));
  EXPECT_TRUE(refused(VqaFormat::kVlt5, R"([{"question_id": 1, "sent": "x"}])", {"each question", "'img_id'"}));
}

TEST_F(VqaFiles, AokvqaAndGqa) {
  const std::string list =
      R"([{"split": "val", "image_id": 299207, "question_id": "22jbM6gDxdaMaunuzgrsBB", "question": "What?",
      "direct_answers": ["cup", "cup", "mug", "cup", "cup"]}, {"image_id": 1, "question_id": "b", "question": "Who?"}])";
  for (const std::string& text : {list, "{\"questions\": " + list + "}"}) {
    const VqaDataset dataset = VqaDataset::load(config(VqaFormat::kAokvqa, text));
    ASSERT_EQ(dataset.size(), 2);
    EXPECT_EQ(dataset.sample(0).name, "22jbM6gDxdaMaunuzgrsBB");
    EXPECT_LT(dataset.sample(0).id, uint64_t{1} << kSampleIdBits);
    EXPECT_NE(dataset.sample(0).id, dataset.sample(1).id);
    EXPECT_EQ(answers_of(dataset.sample(0)), (Answers{{"cup", 1.0f}, {"mug", 0.3f}}));
    EXPECT_EQ(dataset.image_name(0), "images/000000299207.jpg");
    EXPECT_TRUE(dataset.sample(1).answers.empty());
  }
  const VqaDataset gqa = VqaDataset::load(config(VqaFormat::kGqa, R"({
    "201307251": {"imageId": "2354786", "question": "Is it?", "answer": "yes", "types": {"a": {"b": 1}}, "semantic": [{"x": 1}]},
    "02930152": {"imageId": "n5", "question": "What?"}})"));
  ASSERT_EQ(gqa.size(), 2);
  EXPECT_EQ(gqa.sample(0).id, 201307251u);
  EXPECT_EQ(answers_of(gqa.sample(0)), (Answers{{"yes", 1.0f}}));
  EXPECT_EQ(gqa.image_name(0), "images/2354786.jpg");
  EXPECT_EQ(gqa.image_id(1), 5u);
  EXPECT_TRUE(refused(VqaFormat::kGqa, "[]", {"an object of questions by id is expected; got array"}));
  EXPECT_TRUE(refused(VqaFormat::kGqa, R"({"1": {"question": "x"}})", {"'imageId'"}));
}

TEST(SampleIds, NumbersStandForThemselves) {
  EXPECT_EQ(sample_id("17").number, 17u);
  EXPECT_EQ(sample_id("17").name, "");
  EXPECT_EQ(sample_id("0").number, 0u);
  EXPECT_EQ(sample_id("017").name, "017");
  EXPECT_EQ(sample_id("99999999999999999999").name, "99999999999999999999");
  EXPECT_EQ(image_file_name("a/%012d.jpg", "42"), "a/000000000042.jpg");
  EXPECT_EQ(image_file_name("%03d", "12345"), "12345");
  EXPECT_TRUE(throws_error([] { image_file_name("%d%s", "1"); }, ErrorKind::kConfig, {"%d%s"}));
  EXPECT_TRUE(throws_error([] { image_file_name("%d", "x1"); }, ErrorKind::kData, {"ids that are numbers; got 'x1'"}));
}

/// Questions over the small vocabulary.
class VqaTexts : public VqaFiles {
 protected:
  VqaTexts() {
    write_small_vocabulary(folder_);
    tokenizer_ = std::make_unique<Tokenizer>(
        Tokenizer::load({folder_.path(), TokenizerRules::kOpt, {std::string(kAnswerToken)}}));
    text_.task = TextTask::kVqa;
  }
  int32_t id(std::string_view token) const { return tokenizer_->id_of(token); }
  void load(std::string_view vlt5) {
    dataset_ = std::make_unique<VqaDataset>(VqaDataset::load(config(VqaFormat::kVlt5, vlt5)));
  }
  TextTable table() const { return TextTable(*dataset_, *tokenizer_, text_); }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<VqaDataset> dataset_;
  TextConfig text_;
};

constexpr char kTwo[] =
    R"([{"question_id": 1, "img_id": "1", "sent": "he?", "label": {" the[SEP]": 1, "a": 0.5, "": 0.5}},
                            {"question_id": 2, "img_id": "1", "sent": "h", "label": {}}])";

TEST_F(VqaTexts, AsPublished) {
  load(kTwo);
  const TextTable texts = table();
  const int32_t answer = tokenizer_->specials().back().id, end = 2;
  // The question raw, so two question marks; `</a>` takes the space of the answer; "[SEP]" goes.
  EXPECT_EQ(std::vector<int32_t>(texts.prompt_ids(0).begin(), texts.prompt_ids(0).end()),
            (std::vector<int32_t>{2, id("he"), id("?"), id("?"), answer}));
  std::map<std::vector<int32_t>, int> seen;
  for (uint32_t epoch = 0; epoch < 4000; ++epoch) ++seen[texts.ids(0, epoch).joined()];
  std::vector<int32_t> the{2, id("he"), id("?"), id("?"), answer, id("t"), id("he"), end};
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_NEAR(seen[the], 2000, 160);  // 5 standard deviations of a binomial: 5 * sqrt(4000 / 4) = 158
  EXPECT_NEAR(seen[(std::vector<int32_t>{2, id("he"), id("?"), id("?"), answer, id("a"), end})], 1000, 140);
  EXPECT_EQ(texts.ids(1, 0).joined(), (std::vector<int32_t>{2, id("h"), id("?"), answer, end}));
  EXPECT_EQ(texts.longest(), 8);
  const TextTable again = table();
  text_.seed = 1;
  const TextTable other = table();
  int differ = 0;
  for (uint32_t epoch = 0; epoch < 100; ++epoch) {
    EXPECT_EQ(again.ids(0, epoch).joined(), texts.ids(0, epoch).joined());
    differ += other.ids(0, epoch).joined() != texts.ids(0, epoch).joined();
  }
  EXPECT_GT(differ, 20);
}

TEST_F(VqaTexts, LabelsOfAnswersAlone) {
  load(kTwo);
  const TextTable all = table();
  text_.loss_tokens = LossTokens::kAnswer;
  const TextTable answers = table();
  LoaderConfig config;
  config.order = {2, 2, 2, 0, false};
  config.with_images = false;
  config.slots = 20;
  for (const TextTable* texts : {&all, &answers}) {
    Loader loader(*dataset_, *texts, config);
    for (uint32_t epoch = 0; epoch < 20; ++epoch) {
      const MicroBatch& batch = loader.next();
      EXPECT_EQ(batch.tokens, std::max(texts->length(0, epoch), texts->length(1, epoch)));
      EXPECT_EQ(batch.targets, texts->targets(0, epoch) + texts->targets(1, epoch));
      for (int64_t row = 0; row < 2; ++row) {
        const std::vector<int32_t> ids = texts->ids(row, epoch).joined();
        const int64_t first = texts == &all ? 1 : std::ssize(texts->prompt_ids(row));
        for (int64_t t = 0; t < batch.tokens; ++t) {
          const bool label = t >= first && t < std::ssize(ids);
          EXPECT_EQ(batch.labels[static_cast<size_t>(row * batch.tokens + t)],
                    label ? ids[static_cast<size_t>(t)] : kIgnoredLabel);
        }
      }
    }
  }
}

TEST_F(VqaTexts, QuestionsWithoutAnswers) {
  load(
      R"([{"question_id": 1, "img_id": "1", "sent": "a", "label": {"b": 1}}, {"question_id": "x9", "img_id": "1", "sent": "who"}])");
  EXPECT_TRUE(throws_error([&] { table(); }, ErrorKind::kData,
                           {"training needs at least one answer to every question; got none in sample x9", "who"}));
  text_.needs_answers = false;
  const TextTable texts = table();
  EXPECT_EQ(texts.ids(1, 0).size(), std::ssize(texts.prompt_ids(1)));
  text_.task = TextTask::kCaptions;
  EXPECT_TRUE(throws_error([&] { table(); }, ErrorKind::kData, {"a caption is expected; got a question in sample 1"}));
  text_.task = TextTask::kVqa;
  EXPECT_TRUE(throws_error([&] { TextTable(*dataset_, small_tokenizer(), text_); }, ErrorKind::kConfig,
                           {"the added token </a>"}));
  EXPECT_TRUE(throws_error([&] { TextTable{*dataset_}; }, ErrorKind::kData, {"class labels; got one without"}));
  const DataFolder captions;
  const CaptionDataset without = CaptionDataset::load(write_small_dataset(captions, {"a"}));
  EXPECT_TRUE(throws_error([&] { TextTable(without, *tokenizer_, text_); }, ErrorKind::kData,
                           {"a question is expected; got none in sample 100"}));
}

TEST_F(VqaTexts, LongestAnswersCount) {
  load(R"([{"question_id": 1, "img_id": "1", "sent": "h", "label": {"b": 1, "bbbbb": 0.3}}])");
  text_.max_tokens = 8;
  EXPECT_TRUE(throws_error([&] { table(); }, ErrorKind::kData, {"at most 8 tokens", "got 10 in sample 1", "\"h\""}));
  text_.long_text = LongTextPolicy::kTruncate;
  const TextTable texts = table();
  EXPECT_EQ(texts.longest(), 8);
  for (uint32_t epoch = 0; epoch < 20; ++epoch) EXPECT_LE(texts.length(0, epoch), 8);
}

TEST(RealQuestions, Aokvqa) {
  const auto root = test_data("coco_open"), opt = test_data("tokenizers/opt");
  PERMAFROST_NEEDS(root && opt);
  VqaDatasetConfig config;
  config.format = VqaFormat::kAokvqa;
  config.questions = *root / "vqa_aokvqa.json";
  config.images = *root / "images";
  const VqaDataset dataset = VqaDataset::load(config);  // every image is there
  EXPECT_EQ(dataset.size(), 38);
  const Tokenizer tokenizer = Tokenizer::load({*opt, TokenizerRules::kOpt, {std::string(kAnswerToken)}});
  TextConfig text;
  text.task = TextTask::kVqa;
  const TextTable texts(dataset, tokenizer, text);
  EXPECT_EQ(texts.size(), 38);
  for (int64_t i = 0; i < texts.size(); ++i) EXPECT_EQ(texts.prompt_ids(i).back(), 50265) << i;
}

}  // namespace
}  // namespace permafrost::testing
