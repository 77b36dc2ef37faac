#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/metrics/annotation_file.h"
#include "data/metrics/result_files.h"

namespace permafrost {

/// Name as in metric_names(); a fraction (CIDEr: 0..10).
struct MetricValue {
  std::string_view name;
  double value = 0;
};

/// The first metric of the report over the questions of one answer type or question type.
struct ScoreGroup {
  std::string_view by;  ///< "answer_type" or "question_type"
  std::string name;
  int64_t items = 0;
  double value = 0;
};

struct ScoreReport {
  AnnotationKind annotations = AnnotationKind::kCocoCaptions;
  int64_t items = 0;      ///< scored
  int64_t annotated = 0;  ///< images or questions in the annotations (and split)
  std::vector<MetricValue> scores;
  std::vector<ScoreGroup> groups;  ///< by type, then by name
};

/// Scores results against annotations. By kind of annotations:
/// - captions: BLEU-1..4, ROUGE-L, CIDEr over the images that have a result, in the order of the annotations (which the
///   tokenizer can see), as the COCO tools do;
/// - VQA: vqa_accuracy; also by answer type and question type where the file has them;
/// - A-OKVQA, questions with answers: vqa_accuracy and direct_answer; if each question has one answer only, under which
///   leave-one-out says nothing: exact_match and normalized_exact_match;
/// - GQA: normalized_exact_match, exact_match;
/// - VL-T5: soft_label; normalized_exact_match and exact_match with any of the labels above 0.
/// The official VQA tools refuse results that leave out a question; so does this, unless `partial` is set.
/// Errors: kData naming the file and the id: a result that is not in the annotations, of the other sort, or of an image
/// without captions; two results with one id; a question without a result.
ScoreReport score_results(const Annotations& annotations, const ResultFile& results, bool partial = false);

/// Names of the metrics that score_results gives with these annotations, in its order.
std::vector<std::string_view> metrics_of(const Annotations& annotations);

}  // namespace permafrost
