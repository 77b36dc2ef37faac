#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/base/json.h"
#include "launch/evaluation/evaluator.h"

namespace permafrost {

/// Errors: kConfig naming the first of `wanted` that is not among `known`: "<what> have the metrics ...; got --metrics
/// cider".
void require_metrics(std::string_view what, std::span<const std::string_view> known,
                     std::span<const std::string_view> wanted);

/// What `permafrost eval` says of one evaluation. group_by: as in the configuration; only: metrics wanted, empty for
/// all.

/// A table of scores, those of groups below.
std::string evaluation_table(const Evaluation& evaluation, const std::string& group_by,
                             std::span<const std::string_view> only);

/// {"texts", "left_out", keys of score_json, "group_by", "groups": {value: {"texts", keys of score_json}}}.
OrderedJson evaluation_json(const Evaluation& evaluation, const std::string& group_by,
                            std::span<const std::string_view> only);

/// "exact match: 96.3 % (held_out: 94.8 %, exchanged images: 0.1 %)" and a line feed: of all texts, of the group whose
/// value is true, with exchanged images (may be null). What is not there is left out; "" without exact_match.
std::string exact_match_line(const Evaluation& plain, const std::string& group_by, const Evaluation* exchanged);

}  // namespace permafrost
