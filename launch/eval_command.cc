#include <iostream>

#include "core/base/check.h"
#include "core/base/json.h"
#include "data/metrics/annotation_file.h"
#include "data/metrics/metric_names.h"
#include "data/metrics/result_files.h"
#include "data/metrics/score_results.h"
#include "data/metrics/score_text.h"
#include "launch/commands.h"
#include "launch/evaluation/score_output.h"

namespace permafrost {

namespace {

/// The metrics asked for.
std::vector<std::string_view> wanted_metrics(const EvalOptions& options) {
  std::vector<std::string_view> names;
  for (const std::string& name : options.metrics) names.push_back(require_metric(name));
  return names;
}

int run_eval_files(const EvalOptions& options) {
  if (options.results.empty() || options.annotations.empty())
    fail(ErrorKind::kConfig, "eval: a CONFIG, or both --results and --annotations, are expected; got ",
         options.results.empty() && options.annotations.empty() ? "neither"
         : options.results.empty()                              ? "--annotations alone"
                                                                : "--results alone");
  for (const auto& [name, given] : {std::pair{"--out", !options.out.empty()},
                                    {"--adapter", !options.adapter.empty()},
                                    {"--sheet", !options.sheet.empty()},
                                    {"--samples", options.samples > 0},
                                    {"--set", !options.config.overrides.empty()}})
    if (given) fail(ErrorKind::kConfig, "eval: ", name, " is for a CONFIG; got it with --results");
  const std::vector<std::string_view> wanted = wanted_metrics(options);
  const ResultFile results = read_results(options.results);
  const Annotations annotations = read_annotations(options.annotations, options.split);
  require_metrics(concat("eval: ", to_string(annotations.kind)), metrics_of(annotations), wanted);
  const ScoreReport report = score_results(annotations, results, options.partial);
  if (options.json) {
    std::cout << json_text(score_json(report, wanted), 2) << '\n';
    return 0;
  }
  std::cout << "results      " << options.results << " (" << results.results.size() << ' ' << to_string(results.kind)
            << ")\nannotations  " << options.annotations << " (" << to_string(annotations.kind)
            << (options.split.empty() ? "" : ", split " + options.split) << ")\nscored       " << report.items << " of "
            << report.annotated << (is_about_images(annotations.kind) ? " images" : " questions") << "\n\n"
            << score_table(report, wanted);
  return 0;
}

}  // namespace

int run_eval(const EvalOptions& options, const Launcher& launcher) {
  if (options.config.path.empty()) return run_eval_files(options);
  if (!options.results.empty() || !options.annotations.empty())
    fail(ErrorKind::kConfig, "eval: either a CONFIG or --results and --annotations are expected; got both");
  return run_eval_model(options, launcher);
}

}  // namespace permafrost
