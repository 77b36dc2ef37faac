#pragma once
#include <span>
#include <string>
#include <string_view>

#include "core/base/json.h"
#include "data/metrics/score_results.h"

namespace permafrost {

/// Scores as people read them, in hundredths ("CIDEr 107.00"), with the metrics that are absent and why. `only`: names
/// as require_metric gives them; empty for all. With names, absent metrics are not told, and groups only where the
/// metric they have is named.
std::string score_table(const ScoreReport& report, std::span<const std::string_view> only = {});

/// The scores of some of the items, a line for each metric: "exact match, <where>:  94.80".
std::string score_lines(const ScoreReport& report, std::string_view where, std::span<const std::string_view> only = {});

/// Scores as programs read them, as fractions: {"scored", "annotated", "annotations" (kind), "scores": {name: value},
/// "groups": {"answer_type": {name: {"items", <metric>}}}, "absent": {name: reason}}. Keys: docs/metrics.md.
OrderedJson score_json(const ScoreReport& report, std::span<const std::string_view> only = {});

}  // namespace permafrost
