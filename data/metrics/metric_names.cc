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

constexpr MetricName kNames[] = {{"bleu_1", "BLEU-1"},
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

std::string plain(std::string_view name) {
  std::string result = lower_case(name);
  std::erase_if(result, [](char c) { return c == '-' || c == '_' || c == ' '; });
  return result;
}

}  // namespace

std::span<const AbsentMetric> absent_metrics() { return kAbsent; }
std::span<const MetricName> metric_names() { return kNames; }

std::string_view printed_name(std::string_view name) {
  for (const MetricName& known : kNames)
    if (known.name == name) return known.printed;
  fail(ErrorKind::kInternal, "metric: a name that require_metric gives is expected; got '", name, "'");
}

std::string_view require_metric(std::string_view name) {
  std::string known;
  for (const auto& [one, printed] : kNames) {
    if (plain(one) == plain(name)) return one;
    known.append(known.empty() ? "" : ", ").append(one);
  }
  for (const AbsentMetric& absent : kAbsent)
    if (plain(absent.name) == plain(name))
      fail(ErrorKind::kNotBuilt, "metric: ", absent.name, " is absent: it ", absent.reason, "; there are ", known);
  fail(ErrorKind::kConfig, "metric: one of ", known, " is expected; got '", name, "'");
}

}  // namespace permafrost
