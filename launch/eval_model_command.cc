#include <algorithm>
#include <filesystem>
#include <iostream>

#include "configs/validate.h"
#include "core/base/json.h"
#include "core/weights/atomic_file.h"
#include "data/files/make_folder.h"
#include "data/metrics/metric_names.h"
#include "launch/commands.h"
#include "launch/evaluation/evaluator.h"
#include "launch/evaluation/model_config.h"
#include "launch/evaluation/score_output.h"
#include "launch/evaluation/shown_texts.h"
#include "parallel/group/fail_together.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

/// The file with what was right, where the dataset has one by itself: official scores are taken from there, since a
/// dataset keeps answers with their shares and not one by one. Else "".
std::string answer_file(const config::Data& data) {
  if (data.task() != config::Data::VQA || data.format() == config::Data::SHARDS || data.mix_size() > 0) return "";
  const std::string& name = data.format() == config::Data::VQAV2 ? data.annotations() : data.questions();
  return name.empty() ? "" : (fs::path(data.root()) / name).string();
}

/// Its answers, read before texts are generated, which may take hours. None where the file does not answer all
/// questions (official tools read no such file): then the scores that the dataset gives of the others stand alone.
std::optional<Annotations> official_answers(const config::Data& data, const Evaluator& evaluator) {
  const std::string file = answer_file(data);
  if (file.empty()) return std::nullopt;
  if (evaluator.all_answered()) return read_annotations(file);
  std::cerr << "official scores: none, since the file does not answer all questions [file=" << file << "]\n";
  return std::nullopt;
}

std::vector<std::string_view> known_metrics(const std::optional<Annotations>& official, const Evaluator& evaluator) {
  std::vector<std::string_view> names;
  if (official) names = metrics_of(*official);
  for (const std::string_view own : evaluator.metrics())
    if (std::ranges::count(names, own) == 0) names.push_back(own);
  return names;
}

/// Puts the scores of the file in the place of those that the dataset gives.
void use_official_scores(const Annotations& answers, const Evaluator& evaluator,
                         const std::vector<EvaluatedText>& texts, std::optional<ScoreReport>& scores) {
  if (!scores) return;
  ResultFile results{evaluator.result_kind(), {}};
  for (const EvaluatedText& text : texts) results.results.push_back(text.result);
  ScoreReport report = score_results(answers, results, /*partial=*/true);
  for (const MetricValue& score : scores->scores)  // what the official report has not
    if (std::ranges::none_of(report.scores, [&](const MetricValue& s) { return s.name == score.name; }))
      report.scores.push_back(score);
  scores = report;
}

void use_official_scores(const Annotations& answers, const Evaluator& evaluator, Evaluation& evaluation) {
  use_official_scores(answers, evaluator, evaluation.texts, evaluation.scores);
  for (EvaluationGroup& group : evaluation.groups) use_official_scores(answers, evaluator, group.texts, group.scores);
}

void write_result_file(const fs::path& file, const Evaluator& evaluator, const Evaluation& evaluation) {
  std::vector<Result> results;
  for (const EvaluatedText& text : evaluation.texts) results.push_back(text.result);
  write_results(file, evaluator.result_kind(), results);
}

/// What rank 0 prints and writes.
class EvalOutput {
 public:
  EvalOutput(const EvalOptions& options, const config::Resolved& resolved, std::span<const std::string_view> metrics)
      : options_(options), resolved_(resolved), only_(metrics) {}

  void write_results(bool exchanged, const Evaluator& evaluator, const Evaluation& evaluation) const {
    if (!options_.out.empty())
      write_result_file(fs::path(options_.out) / (exchanged ? "results_exchanged.json" : "results.json"), evaluator,
                        evaluation);
  }

  void add(bool exchanged, const Evaluator& evaluator, Evaluation evaluation) {
    json_[exchanged ? "exchanged_images" : "evaluation"] = evaluation_json(evaluation, group_by(), only_);
    if (!options_.json) {
      std::cout << (exchanged ? "with exchanged images: " : "") << evaluation.texts.size()
                << (evaluator.result_kind() == ResultKind::kCaptions ? " images" : " questions");
      if (evaluation.left_out > 0) std::cout << ", " << evaluation.left_out << " left out: their image cannot be used";
      std::cout << '\n' << evaluation_table(evaluation, group_by(), only_);
    }
    if (exchanged) {
      exchanged_ = std::move(evaluation);
      return;
    }
    if (options_.samples > 0) std::cout << text_lines(evaluator, evaluation.texts, options_.samples);
    if (!options_.sheet.empty()) write_text_sheet(options_.sheet, evaluator, evaluation.texts, options_.sheet_count);
    plain_ = std::move(evaluation);
  }

  void finish() {
    json_["config_sha256"] = resolved_.sha256;
    const std::string text = json_text(json_, 2) + "\n";
    if (options_.json) {
      std::cout << text;
    } else if (only_.empty() || std::ranges::count(only_, "exact_match") > 0) {
      std::cout << exact_match_line(plain_, group_by(), exchanged_ ? &*exchanged_ : nullptr);
    }
    if (!options_.out.empty()) write_file_atomically((fs::path(options_.out) / "scores.json").string(), text);
    std::cout << std::flush;
  }

 private:
  const std::string& group_by() const { return resolved_.config.evaluation().group_by(); }

  const EvalOptions& options_;
  const config::Resolved& resolved_;
  std::span<const std::string_view> only_;
  OrderedJson json_;
  Evaluation plain_;
  std::optional<Evaluation> exchanged_;
};

void say_notes(const EvalOptions& options, const config::Config& config, const Evaluator& evaluator) {
  for (const std::string& note : evaluator.notes()) std::cerr << note << '\n';
  if (const std::string note = missing_adapter_note(config, options.config.path); !note.empty())
    std::cerr << note << '\n';
}

void evaluate_on_rank(const EvalOptions& options, const config::Resolved& resolved, Runtime& runtime) {
  const config::Config& config = resolved.config;
  std::vector<std::string_view> metrics;
  for (const std::string& name : options.metrics) metrics.push_back(require_metric(name));
  if (runtime.first() && !options.out.empty()) make_folder(options.out, "eval");
  if (!options.sheet.empty()) require_folder_of(options.sheet);
  Evaluator evaluator(config, runtime);
  if (runtime.first()) say_notes(options, config, evaluator);
  tell_before_unwinding(runtime.world, [&] {
    std::optional<Annotations> official;
    if (runtime.first()) {
      official = official_answers(config.evaluation().data(), evaluator);
      require_metrics("evaluation: the data", known_metrics(official, evaluator), metrics);
      if (!options.out.empty()) evaluator.require_distinct_ids(config.evaluation().samples());
    }
    EvalOutput output(options, resolved, metrics);
    for (const bool exchanged : {false, true}) {
      if (exchanged && !config.evaluation().exchanged_images()) continue;
      Evaluation evaluation = evaluator.run(config.evaluation().samples(), exchanged);
      if (!runtime.first()) continue;
      output.write_results(exchanged, evaluator, evaluation);  // before anything else can go wrong
      if (official) use_official_scores(*official, evaluator, evaluation);
      output.add(exchanged, evaluator, std::move(evaluation));
    }
    if (runtime.first()) output.finish();
  });
}

}  // namespace

int run_eval_model(const EvalOptions& options, const Launcher& launcher) {
  if (!options.split.empty() || options.partial)
    fail(ErrorKind::kConfig,
         "eval: --split and --partial are for --results; got them with a CONFIG, whose "
         "evaluation.data.split says it");
  if (options.json && options.samples > 0)
    fail(ErrorKind::kConfig, "eval: --samples prints lines, and --json prints JSON alone; got both");
  const config::Resolved resolved =
      load_generating_config(options.config.path, options.config.overrides, options.adapter);
  config::require_evaluation_data(resolved.config);
  return run_ranks(launcher, runtime_options(resolved.config.parallel()),
                   [&](Runtime& runtime) { evaluate_on_rank(options, resolved, runtime); });
}

}  // namespace permafrost
