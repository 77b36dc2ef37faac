#include "data/metrics/score_text.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

#include "core/base/check.h"
#include "data/metrics/metric_names.h"

namespace permafrost {
namespace {

constexpr int kNameWidth = 24, kValueWidth = 8;

bool is_wanted(std::span<const std::string_view> only, std::string_view name) {
  return only.empty() || std::find(only.begin(), only.end(), name) != only.end();
}

/// Others report METEOR and SPICE of captions; of answers nobody does. Who names metrics did not ask for them.
bool tells_absent_metrics(const ScoreReport& report, std::span<const std::string_view> only) {
  return only.empty() && is_about_images(report.annotations);
}

/// Groups have the first metric alone.
std::span<const ScoreGroup> groups_to_tell(const ScoreReport& report, std::span<const std::string_view> only) {
  if (report.groups.empty() || !is_wanted(only, report.scores[0].name)) return {};
  return report.groups;
}

}  // namespace

std::string score_table(const ScoreReport& report, std::span<const std::string_view> only) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(2) << std::left;
  const auto row = [&](std::string_view name, double value) {
    out << std::left << std::setw(kNameWidth) << name << std::right << std::setw(kValueWidth) << 100 * value;
  };
  for (const MetricValue& score : report.scores) {
    if (!is_wanted(only, score.name)) continue;
    row(printed_name(score.name), score.value);
    out << '\n';
  }
  if (tells_absent_metrics(report, only))
    for (const AbsentMetric& absent : absent_metrics())
      out << std::left << std::setw(kNameWidth) << absent.name << std::right << std::setw(kValueWidth) << "absent"
          << "  " << absent.reason << '\n';
  std::string_view by;
  for (const ScoreGroup& group : groups_to_tell(report, only)) {
    if (group.by != by) out << printed_name(report.scores[0].name) << " by " << (by = group.by) << '\n';
    row("  " + group.name, group.value);
    out << "  of " << group.items << '\n';
  }
  return out.str();
}

std::string score_lines(const ScoreReport& report, std::string_view where, std::span<const std::string_view> only) {
  std::vector<std::pair<std::string, double>> lines;
  size_t width = kNameWidth;
  for (const MetricValue& score : report.scores) {
    if (!is_wanted(only, score.name)) continue;
    lines.emplace_back(concat(printed_name(score.name), ", ", where, ':'), score.value);
    width = std::max(width, lines.back().first.size());
  }
  std::ostringstream out;
  for (const auto& [name, value] : lines)
    out << std::left << std::setw(static_cast<int>(width)) << name << std::right << std::setw(kValueWidth) << std::fixed
        << std::setprecision(2) << 100 * value << '\n';
  return out.str();
}

OrderedJson score_json(const ScoreReport& report, std::span<const std::string_view> only) {
  OrderedJson json;
  json["annotations"] = to_string(report.annotations);
  json["annotated"] = report.annotated;
  json["scored"] = report.items;
  for (const MetricValue& score : report.scores)
    if (is_wanted(only, score.name)) json["scores"][std::string(score.name)] = score.value;
  for (const ScoreGroup& group : groups_to_tell(report, only))
    json["groups"][std::string(group.by)][group.name] = {{"items", group.items},
                                                         {std::string(report.scores[0].name), group.value}};
  if (tells_absent_metrics(report, only))
    for (const AbsentMetric& absent : absent_metrics()) json["absent"][std::string(absent.name)] = absent.reason;
  return json;
}

}  // namespace permafrost
