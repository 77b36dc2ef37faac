#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/metrics/json_entry.h"

namespace permafrost {

/// Kinds of files that say what would have been right. The content decides which one a file is.
enum class AnnotationKind {
  kCocoCaptions,      ///< {"images": [{id}], "annotations": [{image_id, caption}]}
  kKarpathyCaptions,  ///< dataset_coco.json: {"images": [{cocoid or imgid, split, sentences: [{raw}]}]}
  kVqa,        ///< VQA v1 and v2: {"annotations": [{question_id, answers: [{answer}], answer_type, question_type}]}
  kAokvqa,     ///< A-OKVQA: [{question_id, direct_answers: [...]}]
  kQuestions,  ///< {"questions": [{question_id, answers: [...]}]}
  kGqa,        ///< {"<question id>": {question, answer, ...}}
  kVlt5,       ///< [{question_id, label: {answer: soft score}, answer_type, question_type}]
};
/// "COCO captions", "VQA annotations", ...
std::string_view to_string(AnnotationKind kind);
/// Captions of images; the other kinds are answers to questions.
bool is_about_images(AnnotationKind kind);

/// What people wrote about one image.
struct ImageAnnotation {
  SampleId id;
  std::vector<std::string> captions;
};

/// What people answered to one question. One of the two lists has something in it.
struct QuestionAnnotation {
  SampleId id;
  std::vector<std::string> answers;        ///< of several people, with repetitions; one in GQA
  std::map<std::string, double> labels;    ///< VL-T5: answer to soft score
  std::string answer_type, question_type;  ///< empty where the file has none
};

struct Annotations {
  AnnotationKind kind = AnnotationKind::kCocoCaptions;
  std::filesystem::path file;
  /// Of the two, the one that the kind asks for. Images in the order of the file's list of images, questions in its
  /// order.
  std::vector<ImageAnnotation> images;
  std::vector<QuestionAnnotation> questions;
};

/// Reads any kind. `split`: of a Karpathy file "train" (with "restval"), "val" or "test", empty for all.
/// Errors: kData naming file and entry: empty, entries of no kind or of several, a question without answers, a caption
/// or answer that is no text, ids twice, a caption of an image that is not listed, a split that no image has; malformed
/// JSON with line and column; kConfig for a split of another kind of file.
Annotations read_annotations(const std::filesystem::path& file, const std::string& split = "");

}  // namespace permafrost
