#pragma once
#include <optional>
#include <string>
#include <vector>

#include "parallel/plan/plan.h"

namespace permafrost {

/// Settings for the trainable parameters that match; the first group that matches a parameter is its group.
struct ParameterGroupRule {
  enum class Rank { kAny, kVectors, kMatrices };
  std::string pattern;  ///< glob over full names
  Rank rank = Rank::kAny;
  std::optional<double> lr;  ///< not given: the optimizer's
  double lr_scale = 1;
  std::optional<double> weight_decay;  ///< not given: the optimizer's
  bool follows_schedule = true;
  bool must_match = true;  ///< false: may be without parameters (a rule that no user wrote)
};

struct AdamwConfig {
  double lr = 2e-5, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.02;
  double clip_norm = 0;  ///< largest L2 norm of all gradients together; 0 = no clipping
  std::vector<ParameterGroupRule> groups;
  /// Without effect: groups of prompt parameters (kPromptPattern), which the published captioning scripts lose.
  std::vector<ParameterGroupRule> lost_groups;
};

inline constexpr const char* kPromptPattern = "prompt_module.*";

/// What the optimizer does to one parameter.
struct ParameterSettings {
  double lr = 0, weight_decay = 0;
  bool follows_schedule = true;
};

/// Per parameter of the plan (frozen ones get defaults that nobody reads). Throws kConfig naming every rule, lost ones
/// included, that matches no trainable parameter, and every lost one that matches others than prompt parameters.
std::vector<ParameterSettings> resolve_groups(const Plan& plan, const AdamwConfig& config);

}  // namespace permafrost
