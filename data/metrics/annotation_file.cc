#include "data/metrics/annotation_file.h"

#include <optional>
#include <set>
#include <unordered_map>

#include "core/base/check.h"
#include "data/files/json_entries.h"
#include "data/files/karpathy.h"

namespace permafrost {
namespace {

/// Kind of one entry, by its keys and by where it stands; none for what is passed over (images, licences).
std::optional<AnnotationKind> kind_of_annotation(const JsonEntry& entry, const std::string& key, bool in_list,
                                                 bool file_is_list) {
  if (file_is_list) {
    if (entry.has("direct_answers")) return AnnotationKind::kAokvqa;
    if (entry.has("label")) return AnnotationKind::kVlt5;
  } else if (!in_list) {
    if (entry.has("answer")) return AnnotationKind::kGqa;
    return std::nullopt;
  } else if (key == "annotations") {
    if (entry.has("caption") && entry.has("image_id")) return AnnotationKind::kCocoCaptions;
    if (entry.has("question_id")) return AnnotationKind::kVqa;
  } else if (key == "questions") {
    return AnnotationKind::kQuestions;
  } else if (key == "images" && entry.has("sentences")) {
    return AnnotationKind::kKarpathyCaptions;
  } else {
    return std::nullopt;
  }
  entry.refuse("an annotation (a caption of an image, or the answers to a question)");
}

/// Collects entries while the file is parsed.
class AnnotationReader {
 public:
  AnnotationReader(const std::filesystem::path& file, const std::string& split) : split_(split), splits_(split) {
    read_.file = file;
  }

  Annotations read() {
    JsonEntries entries;
    entries.file = read_.file;
    entries.wants = [](const std::string&) { return true; };
    entries.take = [this](const std::string& key, bool in_list, const Json& value) { take(key, in_list, value); };
    entries.read();
    if (!kind_)
      fail(ErrorKind::kData, "annotations: captions of images or answers to questions are expected; got ",
           is_empty_ ? "an empty file" : "none", place());
    read_.kind = *kind_;
    if (!split_.empty() && *kind_ != AnnotationKind::kKarpathyCaptions)
      fail(ErrorKind::kConfig, "annotations: only a Karpathy file has splits; got split '", split_, "' for ",
           to_string(*kind_), place());
    if (*kind_ == AnnotationKind::kCocoCaptions) join_captions();
    if (read_.images.empty() && read_.questions.empty()) refuse_split();
    require_unique_ids();
    return std::move(read_);
  }

 private:
  void take(const std::string& key, bool in_list, const Json& value) {
    is_empty_ = false;
    const JsonEntry entry{value, "annotations", read_.file};
    const bool file_is_list = key.empty() && in_list;
    const auto kind = kind_of_annotation(entry, key, in_list, file_is_list);
    const bool is_image = key == "images" && in_list;
    if (is_image) ++images_seen_;
    if (!kind) {
      if (is_image && entry.has("id")) take_image(entry);
      return;
    }
    if (kind_ && *kind_ != *kind)
      entry.refuse(concat("one kind of annotation (the first ones are ", to_string(*kind_), ")"));
    kind_ = kind;
    switch (*kind) {
      case AnnotationKind::kCocoCaptions:
        captions_.push_back({entry.id("image_id"), {entry.text("caption")}});
        return;
      case AnnotationKind::kKarpathyCaptions:
        return take_karpathy(entry);
      case AnnotationKind::kGqa:
        read_.questions.push_back({{key, false}, {entry.text("answer")}, {}, "", ""});
        return;
      case AnnotationKind::kVqa:
        return take_question(entry, "answers");
      case AnnotationKind::kQuestions:
        return take_question(entry, "answers");
      case AnnotationKind::kAokvqa:
        return take_question(entry, "direct_answers");
      case AnnotationKind::kVlt5:
        return take_labels(entry);
    }
  }

  void take_image(const JsonEntry& entry) {
    const SampleId id = entry.id("id");
    place_of_image_.emplace(id.text, listed_.size());
    listed_.push_back({id, {}});
  }

  void take_karpathy(const JsonEntry& entry) {
    if (!splits_.take(entry.text("split"))) return;
    const char* id_key = karpathy_id_key(entry.value);
    ImageAnnotation image{id_key ? entry.id(id_key) : SampleId{std::to_string(images_seen_ - 1), true}, {}};
    for (const Json& sentence : entry.list("sentences"))
      image.captions.push_back(JsonEntry{sentence, "annotations", read_.file}.text("raw"));
    read_.images.push_back(std::move(image));
  }

  void take_question(const JsonEntry& entry, const char* key) {
    QuestionAnnotation question = without_answers(entry);
    for (const Json& answer : entry.list(key)) {
      if (!answer.is_string() && !answer.is_object()) entry.refuse("texts in the list of answers");
      question.answers.push_back(answer.is_string() ? answer.get<std::string>()
                                                    : JsonEntry{answer, "annotations", read_.file}.text("answer"));
    }
    if (question.answers.empty())
      fail(ErrorKind::kData, "annotations: every question needs at least one answer; got none for question ",
           question.id.text, place());
    read_.questions.push_back(std::move(question));
  }

  void take_labels(const JsonEntry& entry) {
    QuestionAnnotation question = without_answers(entry);
    const Json& labels = entry.value["label"];
    if (!labels.is_object()) entry.refuse("an object 'label' of answers and scores");
    for (const auto& [answer, score] : labels.items()) {
      if (!score.is_number()) entry.refuse("a number for each answer in 'label'");
      question.labels[answer] = score.get<double>();
    }
    // May be empty: VL-T5 keeps questions on which people did not agree. Nothing scores there.
    read_.questions.push_back(std::move(question));
  }

  QuestionAnnotation without_answers(const JsonEntry& entry) const {
    QuestionAnnotation question{entry.id("question_id"), {}, {}, "", ""};
    if (entry.has("answer_type")) question.answer_type = entry.text("answer_type");
    if (entry.has("question_type")) question.question_type = entry.text("question_type");
    return question;
  }

  /// COCO: captions may stand before the images they name.
  void join_captions() {
    for (const ImageAnnotation& caption : captions_) {
      const auto found = place_of_image_.find(caption.id.text);
      if (found == place_of_image_.end())
        fail(ErrorKind::kData, "annotations: every caption must name a listed image; got image_id ", caption.id.text,
             ", which is not among ", listed_.size(), " images", place());
      listed_[found->second].captions.push_back(caption.captions[0]);
    }
    read_.images = std::move(listed_);
  }

  [[noreturn]] void refuse_split() const {
    fail(ErrorKind::kData, "annotations: images of split '", split_, "' are expected; the file has: ", splits_.known(),
         place());
  }

  void require_unique_ids() const {
    std::set<std::string_view> ids;
    const auto add = [&](const SampleId& id) {
      if (!ids.insert(id.text).second)
        fail(ErrorKind::kData, "annotations: ids must be unique; got id ", id.text, " twice", place());
    };
    for (const ImageAnnotation& image : read_.images) add(image.id);
    for (const QuestionAnnotation& question : read_.questions) add(question.id);
  }

  std::string place() const { return " [file=" + read_.file.string() + "]"; }

  const std::string& split_;
  KarpathySplits splits_;
  Annotations read_;
  std::optional<AnnotationKind> kind_;
  bool is_empty_ = true;
  size_t images_seen_ = 0;
  std::vector<ImageAnnotation> captions_;  // COCO: each with its image's id
  std::vector<ImageAnnotation> listed_;    // COCO: the images; files of other kinds may list some too
  std::unordered_map<std::string, size_t> place_of_image_;
};

}  // namespace

std::string_view to_string(AnnotationKind kind) {
  switch (kind) {
    case AnnotationKind::kCocoCaptions:
      return "COCO captions";
    case AnnotationKind::kKarpathyCaptions:
      return "Karpathy captions";
    case AnnotationKind::kVqa:
      return "VQA annotations";
    case AnnotationKind::kAokvqa:
      return "A-OKVQA questions";
    case AnnotationKind::kQuestions:
      return "questions with answers";
    case AnnotationKind::kGqa:
      return "GQA questions";
    case AnnotationKind::kVlt5:
      return "VL-T5 questions";
  }
  return "unknown";
}

bool is_about_images(AnnotationKind kind) {
  return kind == AnnotationKind::kCocoCaptions || kind == AnnotationKind::kKarpathyCaptions;
}

Annotations read_annotations(const std::filesystem::path& file, const std::string& split) {
  return AnnotationReader(file, split).read();
}

}  // namespace permafrost
