#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "configs/config.pb.h"

namespace permafrost {

/// "loss", "class_accuracy", ...: as in logs and tags.
std::string metric_name(config::Validation::Metric metric);
/// Whether it is a score of generated texts; the others come from the programs that train.
bool is_generated(config::Validation::Metric metric);
bool higher_is_better(config::Validation::Metric metric);

/// The best value so far, and the patience that is left. Part of a checkpoint.
struct BestSoFar {
  std::string metric;  ///< metric_name
  double value = 0;
  int64_t step = 0;            ///< updates after which it was measured
  int64_t without_better = 0;  ///< validations since then
  std::string measured_on{};   ///< ValidationMeasure::measured_on
  friend bool operator==(const BestSoFar&, const BestSoFar&) = default;
};

/// Takes in the value after `step` updates; true when it is the best, which equal values are not. `best` of another
/// metric, or measured on something else, is forgotten.
bool take_value(std::optional<BestSoFar>& best, config::Validation::Metric metric, const std::string& measured_on,
                double value, int64_t step);

}  // namespace permafrost
