#include "launch/training/best_so_far.h"

#include <algorithm>
#include <cctype>

namespace permafrost {

std::string metric_name(config::Validation::Metric metric) {
  std::string name = config::Validation::Metric_Name(metric);
  std::ranges::transform(name, name.begin(), [](char c) { return static_cast<char>(std::tolower(c)); });
  return name;
}

bool is_generated(config::Validation::Metric metric) {
  return metric != config::Validation::LOSS && metric != config::Validation::CLASS_ACCURACY;
}

bool higher_is_better(config::Validation::Metric metric) { return metric != config::Validation::LOSS; }

bool take_value(std::optional<BestSoFar>& best, config::Validation::Metric metric, const std::string& measured_on,
                double value, int64_t step) {
  const std::string name = metric_name(metric);
  if (best && (best->metric != name || best->measured_on != measured_on)) best.reset();
  const bool better = !best || (higher_is_better(metric) ? value > best->value : value < best->value);
  if (better)
    best = BestSoFar{name, value, step, 0, measured_on};
  else
    ++best->without_better;
  return better;
}

}  // namespace permafrost
