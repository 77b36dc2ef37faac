#pragma once
#include <span>
#include <string_view>

namespace permafrost {

/// A metric that others report and this library does not compute, and why.
struct AbsentMetric {
  std::string_view name, reason;
};
std::span<const AbsentMetric> absent_metrics();

/// What is computed: bleu_1 ... bleu_4, rouge_l, cider, vqa_accuracy, direct_answer, soft_label, exact_match,
/// normalized_exact_match; and how tables print it: "BLEU-1".
struct MetricName {
  std::string_view name, printed;
};
std::span<const MetricName> metric_names();
/// Errors: kInternal for a name that is not among them.
std::string_view printed_name(std::string_view name);

/// Errors: kNotBuilt for an absent metric, with its reason; kConfig for an unknown one, with the known ones. Capitals,
/// hyphens and underscores do not matter: "ROUGE-L" is rouge_l. Returns the name as metric_names() has it.
std::string_view require_metric(std::string_view name);

}  // namespace permafrost
