#include "data/metrics/score_text.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

#include "core/base/check.h"
#include "data/metrics/metric_names.h"

namespace permafrost {
namespace {

constexpr int kNameWidth = 24, kValueWidth = 8;

std::string_view printed_name(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kPrintedNames[] = {
      {"bleu_1", "BLEU-1"},
      {"bleu_2", "BLEU-2"},
      {"bleu_3", "BLEU-3"},
      {"bleu_4", "BLEU-4"},
      {"rouge_l", "ROUGE-L"},
      {"cider", "CIDEr"},
      {"vqa_accuracy", "VQA accuracy"},
      {"direct_answer", "direct answer"},
      {"soft_label", "soft label"},
      {"exact_match", "exact match"},
      {"normalized_exact_match", "normalized exact match"}};
  for (const auto& [known, printed] : kPrintedNames)
    if (known == name) return printed;
  return name;
}

bool is_wanted(std::span<const std::string_view> only, std::string_view name) {
  return only.empty() || std::find(only.begin(), only.end(), name) != only.end();
}

/// Others report METEOR and SPICE of captions; of answers nobody does.
bool has_absent_metrics(const ScoreReport& report) { return is_about_images(report.annotations); }

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
  if (has_absent_metrics(report))
    for (const AbsentMetric& absent : absent_metrics())
      out << std::left << std::setw(kNameWidth) << absent.name << std::right << std::setw(kValueWidth) << "absent"
          << "  " << absent.reason << '\n';
  std::string_view by;
  for (const ScoreGroup& group : report.groups) {
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
  for (const ScoreGroup& group : report.groups)
    json["groups"][std::string(group.by)][group.name] = {{"items", group.items},
                                                         {std::string(report.scores[0].name), group.value}};
  if (has_absent_metrics(report))
    for (const AbsentMetric& absent : absent_metrics()) json["absent"][std::string(absent.name)] = absent.reason;
  return json;
}

}  // namespace permafrost
