#include "data/datasets/vqa_dataset.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "core/base/check.h"
#include "data/datasets/sample_id.h"
#include "data/files/json_entries.h"

namespace permafrost {

namespace {

/// Answers while they are read; a sample holds views.
struct OwnedAnswers {
  std::vector<std::pair<std::string, float>> list;

  std::vector<Answer> views() const {
    std::vector<Answer> views;
    for (const auto& [text, score] : list) views.push_back({text, score});
    return views;
  }
  /// One person's answer; scores are counts until `score_counts`.
  void count(std::string text) {
    const auto found = std::ranges::find(list, text, &std::pair<std::string, float>::first);
    if (found != list.end())
      found->second += 1;
    else
      list.emplace_back(std::move(text), 1.0f);
  }
  void score_counts() {
    static constexpr float kScores[] = {0, 0.3f, 0.6f, 0.9f, 1};
    for (auto& [text, score] : list) score = kScores[std::min<size_t>(static_cast<size_t>(score), 4)];
  }
};

/// Where VL-T5's files say an image is.
std::string vlt5_pattern(const std::string& id) {
  for (const char* folder : {"train2014", "val2014", "test2014", "test2015"})
    if (id.starts_with(concat("COCO_", folder, "_"))) return concat(folder, "/%s.jpg");
  return std::ranges::all_of(id, [](char c) { return c >= '0' && c <= '9'; }) ? "VG_100K/%s.jpg" : "%s.jpg";
}

}  // namespace

/// Takes entries of the files while they are parsed and drops them.
class VqaReader {
 public:
  explicit VqaReader(const VqaDatasetConfig& config) : config_(config), fields_("dataset", config.questions) {
    dataset_.folder_ = config.images;
  }

  VqaDataset read() {
    read_questions();
    if (dataset_.size() == 0)
      fail(ErrorKind::kData, "dataset: at least one question is expected; got none", fields_.place());
    if (!config_.annotations.empty()) read_annotations();
    name_images();
    dataset_.finish(config_.missing_images, "question", fields_.place());
    return std::move(dataset_);
  }

 private:
  void read_questions() {
    const bool by_id = config_.format == VqaFormat::kGqa, list_at_top = config_.format == VqaFormat::kVlt5;
    bool found = false;
    JsonEntries entries;
    entries.file = config_.questions;
    entries.wants = [&](const std::string& key) {
      return by_id || (!list_at_top && (key == "questions" || key == "data_subtype"));
    };
    entries.begin = [&](const std::string& list) {
      if (by_id) refuse_questions_file(list.empty() ? "array" : concat("array of '", list, "'"));
      found |= list == "questions" || (list.empty() && (list_at_top || config_.format == VqaFormat::kAokvqa));
    };
    entries.take = [&](const std::string& key, bool in_list, const Json& entry) {
      if (in_list != by_id) take_question(key, entry);
    };
    const Json root = entries.read();
    note_subtype(root);
    if (!(by_id ? root.is_object() : found)) refuse_questions_file(root.is_object() ? "other keys" : root.type_name());
  }

  [[noreturn]] void refuse_questions_file(const std::string& got) const {
    static constexpr const char* kExpected[] = {"an object with the list 'questions'", "a list of questions",
                                                "a list of questions, or an object with the list 'questions'",
                                                "an object of questions by id"};
    fail(ErrorKind::kData, "dataset: ", kExpected[static_cast<size_t>(config_.format)], " is expected; got ", got,
         fields_.place());
  }

  /// `key`: of the member or of the list.
  void take_question(const std::string& key, const Json& entry) {
    switch (config_.format) {
      case VqaFormat::kVqav2:
        return add(fields_.number_or_text(entry, "question_id", "question"),
                   fields_.number_or_text(entry, "image_id", "question"), fields_.text(entry, "question", "question"),
                   {});
      case VqaFormat::kVlt5:
        return add(fields_.number_or_text(entry, "question_id", "question"),
                   fields_.number_or_text(entry, "img_id", "question"), fields_.text(entry, "sent", "question"),
                   label_answers(entry));
      case VqaFormat::kAokvqa:
        return add(fields_.number_or_text(entry, "question_id", "question"),
                   fields_.number_or_text(entry, "image_id", "question"), fields_.text(entry, "question", "question"),
                   listed_answers(entry));
      case VqaFormat::kGqa:
        break;
    }
    OwnedAnswers answers;
    if (JsonFields::find(entry, "answer")) answers.list.emplace_back(fields_.text(entry, "answer", "question"), 1.0f);
    add(key, fields_.number_or_text(entry, "imageId", "question"), fields_.text(entry, "question", "question"),
        answers);
  }

  void add(const std::string& written_id, const std::string& image, const std::string& question,
           const OwnedAnswers& answers) {
    if (question.empty())
      fail(ErrorKind::kData, "dataset: a question with text is expected; got none in question ", written_id,
           fields_.place());
    const WrittenId id = sample_id(written_id);
    const auto [found, is_new] = image_of_id_.emplace(image, dataset_.images());
    if (is_new) dataset_.add_image(image_number(image), image);  // its file is known when all files are read
    const std::vector<Answer> views = answers.views();
    Sample sample;
    sample.id = id.number;
    sample.name = id.name;
    sample.image = found->second;
    sample.question = question;
    sample.answers = views;
    dataset_.store_.add(sample, fields_.place());
  }

  /// VL-T5: soft scores by answer. Answers without score are none; if that leaves nothing, the empty answer is meant.
  OwnedAnswers label_answers(const Json& entry) const {
    OwnedAnswers answers;
    const Json* label = JsonFields::find(entry, "label");
    if (!label) return answers;
    if (!label->is_object()) fields_.refuse("question", "an object of scores by answer in 'label'", entry);
    for (const auto& [answer, score] : label->items()) {
      const double value = score.is_number() ? score.get<double>() : -1;
      if (!(value >= 0 && std::isfinite(value))) fields_.refuse("question", "scores of 0 and up in 'label'", entry);
      if (value > 0) answers.list.emplace_back(answer, static_cast<float>(value));
    }
    if (answers.list.empty()) answers.list.emplace_back("", 1.0f);
    return answers;
  }

  OwnedAnswers listed_answers(const Json& entry) const {
    OwnedAnswers answers;
    const Json* list = JsonFields::find(entry, "direct_answers");
    if (!list) list = JsonFields::find(entry, "answers");
    if (!list) return answers;
    if (!list->is_array()) fields_.refuse("question", "a list 'direct_answers'", entry);
    for (const Json& answer : *list) {
      if (!answer.is_string()) fields_.refuse("question", "texts in 'direct_answers'", entry);
      answers.count(answer.get<std::string>());
    }
    answers.score_counts();
    return answers;
  }

  void read_annotations() {
    const JsonFields fields("dataset", config_.annotations);
    std::unordered_map<uint64_t, int64_t> question_of_id;
    for (int64_t i = 0; i < dataset_.size(); ++i) question_of_id.emplace(dataset_.store_.sample(i).id, i);
    std::vector<bool> answered(static_cast<size_t>(dataset_.size()));
    bool found = false;
    JsonEntries entries;
    entries.file = config_.annotations;
    entries.wants = [](const std::string& key) { return key == "annotations" || key == "data_subtype"; };
    entries.begin = [&](const std::string& list) { found |= list == "annotations"; };
    entries.take = [&](const std::string&, bool in_list, const Json& entry) {
      if (!in_list) return;
      const std::string id = fields.number_or_text(entry, "question_id", "annotation");
      const auto question = question_of_id.find(sample_id(id).number);
      if (question == question_of_id.end())
        fail(ErrorKind::kData, "dataset: every annotation must belong to a listed question; got one of question ", id,
             ", which is not among ", dataset_.size(), " questions of ", config_.questions.string(), fields.place());
      const auto at = static_cast<size_t>(question->second);
      if (answered[at])
        fail(ErrorKind::kData, "dataset: one annotation per question is expected; got two of question ", id,
             fields.place());
      answered[at] = true;
      dataset_.store_.set_answers(question->second, annotated_answers(fields, entry).views());
    };
    const Json root = entries.read();
    note_subtype(root);
    if (!found)
      fail(ErrorKind::kData, "dataset: an object with the list 'annotations' is expected; got ",
           root.is_object() ? "other keys" : root.type_name(), fields.place());
    const auto missing = std::ranges::find(answered, false);
    if (missing != answered.end())
      fail(ErrorKind::kData, "dataset: every question must have an annotation; got none of question ",
           sample_name(dataset_.store_.sample(missing - answered.begin())), " of ", config_.questions.string(),
           fields.place());
  }

  static OwnedAnswers annotated_answers(const JsonFields& fields, const Json& entry) {
    OwnedAnswers answers;
    for (const Json& answer : fields.list(entry, "answers", "annotation"))
      answers.count(fields.text(answer, "answer", "answer"));
    answers.score_counts();
    return answers;
  }

  void note_subtype(const Json& root) {
    const Json* subtype = JsonFields::find(root, "data_subtype");
    if (subtype && subtype->is_string()) subtype_ = subtype->get<std::string>();
  }

  std::string pattern_of(const std::string& image) const {
    if (!config_.image_name.empty()) return config_.image_name;
    switch (config_.format) {
      case VqaFormat::kVqav2:
        break;
      case VqaFormat::kVlt5:
        return vlt5_pattern(image);
      case VqaFormat::kAokvqa:
        return "%012d.jpg";
      case VqaFormat::kGqa:
        return "%s.jpg";
    }
    if (subtype_.empty())
      fail(ErrorKind::kData,
           "dataset: 'data_subtype' is expected, which says how images are called (or data.image_name); got none",
           fields_.place());
    return "COCO_" + subtype_ + "_%012d.jpg";
  }

  void name_images() {
    for (std::string& name : dataset_.image_names_) name = image_file_name(pattern_of(name), name);
  }

  const VqaDatasetConfig& config_;
  JsonFields fields_;
  VqaDataset dataset_;
  std::unordered_map<std::string, int64_t> image_of_id_;
  std::string subtype_;
};

VqaDataset VqaDataset::load(const VqaDatasetConfig& config) { return VqaReader(config).read(); }

}  // namespace permafrost
