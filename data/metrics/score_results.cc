#include "data/metrics/score_results.h"

#include <algorithm>
#include <functional>
#include <map>
#include <unordered_map>

#include "core/base/check.h"
#include "data/metrics/caption_scores.h"
#include "data/metrics/vqa.h"

namespace permafrost {
namespace {

std::string place_of(const Annotations& annotations) { return " [file=" + annotations.file.string() + "]"; }

/// Text of each result by its id; every id must be that of one of the `annotated`, and of no other result.
template <typename Annotated>
std::unordered_map<std::string_view, std::string_view> texts_by_id(const Annotations& annotations,
                                                                   const std::vector<Annotated>& annotated,
                                                                   const ResultFile& results) {
  std::unordered_map<std::string_view, bool> known;
  for (const Annotated& one : annotated) known.emplace(one.id.text, true);
  std::unordered_map<std::string_view, std::string_view> texts;
  for (const Result& result : results.results) {
    if (!known.contains(result.id.text))
      fail(ErrorKind::kData, "results: every id must be in the annotations; got id ", result.id.text,
           ", which is not among ", annotated.size(), " ", to_string(annotations.kind), place_of(annotations));
    if (!texts.emplace(result.id.text, result.text).second)
      fail(ErrorKind::kData, "results: one entry for each id is expected; got id ", result.id.text, " twice",
           place_of(annotations));
  }
  return texts;
}

constexpr std::string_view kCaptionMetrics[] = {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"};

void score_images(const Annotations& annotations, const ResultFile& results, ScoreReport& report) {
  const auto texts = texts_by_id(annotations, annotations.images, results);
  std::vector<CaptionItem> items;
  for (const ImageAnnotation& image : annotations.images) {
    const auto found = texts.find(image.id.text);
    if (found == texts.end()) continue;
    if (image.captions.empty())
      fail(ErrorKind::kData, "results: every image must have captions in the annotations; got image ", image.id.text,
           " without any", place_of(annotations));
    items.push_back({std::string(found->second), image.captions});
  }
  const CaptionScore all = score_captions(items).all;
  report.items = static_cast<int64_t>(items.size());
  report.annotated = static_cast<int64_t>(annotations.images.size());
  const double values[] = {all.bleu[0], all.bleu[1], all.bleu[2], all.bleu[3], all.rouge_l, all.cider};
  for (size_t i = 0; i < std::size(values); ++i) report.scores.push_back({kCaptionMetrics[i], values[i]});
}

using ScoreQuestion = std::function<double(std::string_view, const QuestionAnnotation&)>;
struct QuestionMetric {
  std::string_view name;
  ScoreQuestion score;
};

template <typename Match>
ScoreQuestion any_answer(Match match) {
  return [match](std::string_view text, const QuestionAnnotation& question) {
    const bool answered = std::any_of(question.answers.begin(), question.answers.end(),
                                      [&](const std::string& answer) { return match(text, answer); });
    const bool labelled = std::any_of(question.labels.begin(), question.labels.end(),
                                      [&](const auto& label) { return label.second > 0 && match(text, label.first); });
    return answered || labelled ? 1.0 : 0.0;
  };
}

std::vector<QuestionMetric> metrics_for(const Annotations& annotations) {
  const QuestionMetric exact{"exact_match", any_answer(exact_match)},
      normalized{"normalized_exact_match", any_answer(normalized_exact_match)},
      vqa{"vqa_accuracy", [](std::string_view text, const auto&q) { return vqa_accuracy(text, q.answers); }},
      direct{"direct_answer",
             [](std::string_view text, const auto&q) { return direct_answer_accuracy(text, q.answers); }},
      soft{"soft_label", [](std::string_view text, const auto&q) { return soft_label_accuracy(text, q.labels); }};
  const bool one_answer = std::all_of(annotations.questions.begin(), annotations.questions.end(),
                                      [](const QuestionAnnotation& question) { return question.answers.size() == 1; });
  switch (annotations.kind) {
    case AnnotationKind::kVqa:
      return {vqa};
    case AnnotationKind::kGqa:
      return {normalized, exact};
    case AnnotationKind::kVlt5:
      return {soft, normalized, exact};
    default:
      return one_answer ? std::vector{normalized, exact} : std::vector{vqa, direct};
  }
}

void add_groups(ScoreReport& report, std::string_view by, const std::map<std::string, std::vector<double>>& values) {
  for (const auto& [name, scores] : values)
    if (!name.empty())
      report.groups.push_back({by, name, static_cast<int64_t>(scores.size()), order_free_mean(scores)});
}

void score_questions(const Annotations& annotations, const ResultFile& results, bool partial, ScoreReport& report) {
  const auto texts = texts_by_id(annotations, annotations.questions, results);
  report.items = static_cast<int64_t>(texts.size());
  report.annotated = static_cast<int64_t>(annotations.questions.size());
  const std::vector<QuestionMetric> metrics = metrics_for(annotations);
  std::vector<std::vector<double>> values(metrics.size());
  std::map<std::string, std::vector<double>> of_answer_type, of_question_type;
  for (const QuestionAnnotation& question : annotations.questions) {
    const auto found = texts.find(question.id.text);
    if (found == texts.end()) {
      if (partial) continue;
      fail(ErrorKind::kData, "results: every question must have an answer, unless --partial is given; got ",
           report.items, " answers to ", report.annotated, " questions, none to question ", question.id.text,
           place_of(annotations));
    }
    for (size_t i = 0; i < metrics.size(); ++i) values[i].push_back(metrics[i].score(found->second, question));
    of_answer_type[question.answer_type].push_back(values[0].back());
    of_question_type[question.question_type].push_back(values[0].back());
  }
  for (size_t i = 0; i < metrics.size(); ++i) report.scores.push_back({metrics[i].name, order_free_mean(values[i])});
  add_groups(report, "answer_type", of_answer_type);
  add_groups(report, "question_type", of_question_type);
}

}  // namespace

std::vector<std::string_view> metrics_of(const Annotations& annotations) {
  if (is_about_images(annotations.kind)) return {std::begin(kCaptionMetrics), std::end(kCaptionMetrics)};
  std::vector<std::string_view> names;
  for (const QuestionMetric& metric : metrics_for(annotations)) names.push_back(metric.name);
  return names;
}

ScoreReport score_results(const Annotations& annotations, const ResultFile& results, bool partial) {
  ScoreReport report;
  report.annotations = annotations.kind;
  const bool captions = results.kind == ResultKind::kCaptions;
  if (captions != is_about_images(annotations.kind))
    fail(ErrorKind::kData,
         "results: ", captions ? "captions need annotations of images" : "answers need annotations of questions",
         "; got ", to_string(annotations.kind), place_of(annotations));
  if (captions) {
    score_images(annotations, results, report);
  } else {
    score_questions(annotations, results, partial, report);
  }
  return report;
}

}  // namespace permafrost
