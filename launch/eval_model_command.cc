#include <filesystem>
#include <iostream>

#include "configs/validate.h"
#include "core/base/json.h"
#include "core/weights/atomic_file.h"
#include "data/metrics/metric_names.h"
#include "data/metrics/score_text.h"
#include "launch/commands.h"
#include "launch/evaluation/evaluator.h"
#include "launch/evaluation/model_config.h"
#include "parallel/group/fail_together.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

/// The file with what was right, where the dataset has one by itself: official scores are taken from there, since a
/// dataset keeps answers with their shares and not one by one.
std::string answer_file(const config::Data& data) {
  if (data.task() != config::Data::VQA || data.format() == config::Data::SHARDS || data.mix_size() > 0) return "";
  const std::string& name = data.format() == config::Data::VQAV2 ? data.annotations() : data.questions();
  return name.empty() ? "" : (fs::path(data.root()) / name).string();
}

std::optional<ScoreReport> official_scores(const config::Config& config, const Evaluator& evaluator,
                                           const Evaluation& evaluation) {
  const std::string file = answer_file(config.evaluation().data());
  if (file.empty() || !evaluation.scores) return evaluation.scores;
  ResultFile results{evaluator.result_kind(), {}};
  for (const EvaluatedText& text : evaluation.texts) results.results.push_back(text.result);
  ScoreReport report = score_results(read_annotations(file), results, /*partial=*/true);
  for (const MetricValue& score : evaluation.scores->scores)  // what the official report has not
    if (std::ranges::none_of(report.scores, [&](const MetricValue& s) { return s.name == score.name; }))
      report.scores.push_back(score);
  return report;
}

void write_result_file(const fs::path& file, const Evaluator& evaluator, const Evaluation& evaluation) {
  std::vector<Result> results;
  for (const EvaluatedText& text : evaluation.texts) results.push_back(text.result);
  write_results(file, evaluator.result_kind(), results);
}

class EvalOutput {
 public:
  EvalOutput(const EvalOptions& options, std::span<const std::string_view> metrics)
      : options_(options), only_(metrics) {}

  /// suffix: "" or "_exchanged".
  void add(const std::string& suffix, const Evaluator& evaluator, const Evaluation& evaluation,
           const std::optional<ScoreReport>& scores) {
    const std::string title = suffix.empty() ? "" : "with exchanged images: ";
    OrderedJson entry;
    entry["texts"] = std::ssize(evaluation.texts);
    entry["left_out"] = evaluation.left_out;
    if (scores) entry.update(score_json(*scores, only_));
    json_[suffix.empty() ? "evaluation" : "exchanged_images"] = entry;
    if (!options_.json) {
      std::cout << title << evaluation.texts.size()
                << (evaluator.result_kind() == ResultKind::kCaptions ? " images" : " questions");
      if (evaluation.left_out > 0) std::cout << ", " << evaluation.left_out << " left out: their image cannot be used";
      std::cout << '\n' << (scores ? score_table(*scores, only_) : "no answers in the data, so no scores\n");
    }
    if (!options_.out.empty())
      write_result_file(fs::path(options_.out) / ("results" + suffix + ".json"), evaluator, evaluation);
  }

  void finish(const config::Resolved& resolved) {
    json_["config_sha256"] = resolved.sha256;
    const std::string text = json_text(json_, 2) + "\n";
    if (options_.json) std::cout << text;
    if (!options_.out.empty()) write_file_atomically((fs::path(options_.out) / "scores.json").string(), text);
    std::cout << std::flush;
  }

 private:
  const EvalOptions& options_;
  std::span<const std::string_view> only_;
  OrderedJson json_;
};

void say_notes(const config::Config& config, const Evaluator& evaluator) {
  for (const std::string& note : evaluator.notes()) std::cerr << note << '\n';
  if (const std::string note = missing_adapter_note(config); !note.empty()) std::cerr << note << '\n';
}

void evaluate_on_rank(const EvalOptions& options, const config::Resolved& resolved, Runtime& runtime) {
  const config::Config& config = resolved.config;
  std::vector<std::string_view> metrics;
  for (const std::string& name : options.metrics) metrics.push_back(require_metric(name));
  if (runtime.first() && !options.out.empty()) {
    std::error_code error;
    fs::create_directories(options.out, error);
    if (error) fail(ErrorKind::kStorage, "eval: cannot make the folder ", options.out, ": ", error.message());
  }
  Evaluator evaluator(config, runtime);
  if (runtime.first()) say_notes(config, evaluator);
  tell_before_unwinding(runtime.world, [&] {
    EvalOutput output(options, metrics);
    for (const bool exchanged : {false, true}) {
      if (exchanged && !config.evaluation().exchanged_images()) continue;
      const Evaluation evaluation = evaluator.run(config.evaluation().samples(), exchanged);
      if (!runtime.first()) continue;
      const std::optional<ScoreReport> scores = official_scores(config, evaluator, evaluation);
      if (scores)
        for (const std::string_view metric : metrics)
          if (std::ranges::none_of(scores->scores, [&](const MetricValue& s) { return s.name == metric; }))
            evaluation.value(metric);  // throws, naming the metrics there are
      output.add(exchanged ? "_exchanged" : "", evaluator, evaluation, scores);
    }
    if (runtime.first()) output.finish(resolved);
  });
}

}  // namespace

int run_eval_model(const EvalOptions& options, const Launcher& launcher) {
  if (!options.split.empty() || options.partial)
    fail(ErrorKind::kConfig,
         "eval: --split and --partial are for --results; got them with a CONFIG, whose "
         "evaluation.data.split says it");
  const config::Resolved resolved =
      load_generating_config(options.config.path, options.config.overrides, options.adapter);
  config::require_evaluation_data(resolved.config);
  RuntimeOptions runtime;
  runtime.threads = resolved.config.parallel().threads();
  runtime.ranks_per_node = resolved.config.parallel().ranks_per_node();
  runtime.timeout = std::chrono::seconds(resolved.config.parallel().timeout_s());
  return run_ranks(launcher, runtime, [&](Runtime& r) { evaluate_on_rank(options, resolved, r); });
}

}  // namespace permafrost
