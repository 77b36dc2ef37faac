#include "data/metrics/metric_names.h"

#include <string>

#include "core/base/check.h"
#include "data/metrics/lower_case.h"

namespace permafrost {
namespace {

constexpr AbsentMetric kAbsent[] = {
    {"METEOR",
     "needs its Java program and a table of paraphrases; what would be computed without them is another metric"},
    {"SPICE", "needs a dependency parser with trained models and WordNet, in Java"}};

constexpr std::string_view kNames[] = {"bleu_1",
                                       "bleu_2",
                                       "bleu_3",
                                       "bleu_4",
                                       "rouge_l",
                                       "cider",
                                       "vqa_accuracy",
                                       "direct_answer",
                                       "soft_label",
                                       "exact_match",
                                       "normalized_exact_match"};

std::string plain(std::string_view name) {
  std::string result = lower_case(name);
  std::erase_if(result, [](char c) { return c == '-' || c == '_' || c == ' '; });
  return result;
}

}  // namespace

std::span<const AbsentMetric> absent_metrics() { return kAbsent; }
std::span<const std::string_view> metric_names() { return kNames; }

std::string_view require_metric(std::string_view name) {
  std::string known;
  for (const std::string_view one : kNames) {
    if (plain(one) == plain(name)) return one;
    known.append(known.empty() ? "" : ", ").append(one);
  }
  for (const AbsentMetric& absent : kAbsent)
    if (plain(absent.name) == plain(name))
      fail(ErrorKind::kNotBuilt, "metric: ", absent.name, " is absent: it ", absent.reason, "; there are ", known);
  fail(ErrorKind::kConfig, "metric: one of ", known, " is expected; got '", name, "'");
}

}  // namespace permafrost
