#include "launch/evaluation/score_output.h"

#include <algorithm>
#include <cstdio>

#include "core/base/check.h"
#include "data/metrics/score_text.h"

namespace permafrost {

namespace {

std::optional<double> exact_match_of(const std::optional<ScoreReport>& report) {
  if (report)
    for (const MetricValue& score : report->scores)
      if (score.name == "exact_match") return score.value;
  return std::nullopt;
}

std::string percent(double fraction) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100 * fraction);
  return text;
}

}  // namespace

void require_metrics(std::string_view what, std::span<const std::string_view> known,
                     std::span<const std::string_view> wanted) {
  for (const std::string_view name : wanted) {
    if (std::ranges::count(known, name) > 0) continue;
    std::string names;
    for (const std::string_view one : known) names.append(names.empty() ? "" : ", ").append(one);
    fail(ErrorKind::kConfig, what, " have the metrics ", names, "; got --metrics ", name);
  }
}

std::string evaluation_table(const Evaluation& evaluation, const std::string& group_by,
                             std::span<const std::string_view> only) {
  if (!evaluation.scores) return "no answers in the data, so no scores\n";
  std::string table = score_table(*evaluation.scores, only);
  for (const EvaluationGroup& group : evaluation.groups) {
    const std::string where = concat(group_by, " = ", group.value);
    table += concat(where, ": ", group.texts.size(),
                    is_about_images(evaluation.scores->annotations) ? " images" : " questions",
                    group.scores ? "" : ", no answers in the data", '\n');
    if (group.scores) table += score_lines(*group.scores, where, only);
  }
  return table;
}

OrderedJson evaluation_json(const Evaluation& evaluation, const std::string& group_by,
                            std::span<const std::string_view> only) {
  OrderedJson json;
  json["texts"] = std::ssize(evaluation.texts);
  json["left_out"] = evaluation.left_out;
  if (evaluation.scores) json.update(score_json(*evaluation.scores, only));
  if (!group_by.empty()) json["group_by"] = group_by;
  for (const EvaluationGroup& group : evaluation.groups) {
    OrderedJson& entry = json["groups"][group.value];
    entry["texts"] = std::ssize(group.texts);
    if (group.scores) entry.update(score_json(*group.scores, only));
    entry.erase("absent");
  }
  return json;
}

std::string exact_match_line(const Evaluation& plain, const std::string& group_by, const Evaluation* exchanged) {
  const std::optional<double> all = exact_match_of(plain.scores);
  if (!all) return "";
  std::string parts;
  const auto add = [&](const std::string& name, const std::optional<double>& value) {
    if (value) parts += concat(parts.empty() ? "" : ", ", name, ": ", percent(*value));
  };
  for (const EvaluationGroup& group : plain.groups)
    if (group.is_true) add(group_by, exact_match_of(group.scores));
  if (exchanged) add("exchanged images", exact_match_of(exchanged->scores));
  return concat("exact match: ", percent(*all), parts.empty() ? "" : " (" + parts + ")", '\n');
}

}  // namespace permafrost
