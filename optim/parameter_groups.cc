#include "optim/parameter_groups.h"

#include <algorithm>

namespace permafrost {

namespace {

bool takes(const ParameterGroupRule& group, const ParamPlan& param) {
  const bool vector = param.shape.rank() <= 1;
  if (group.rank == ParameterGroupRule::Rank::kVectors && !vector) return false;
  if (group.rank == ParameterGroupRule::Rank::kMatrices && vector) return false;
  return param.trainable && name_matches(group.pattern, param.name);
}

void check_matches(const Plan& plan, const std::vector<ParameterGroupRule>& groups) {
  std::string unused;
  for (size_t g = 0; g < groups.size(); ++g)
    if (groups[g].must_match &&
        std::ranges::none_of(plan.params, [&](const ParamPlan& param) { return takes(groups[g], param); }))
      unused += concat(unused.empty() ? "" : ", ", "groups[", g, "] '", groups[g].pattern, "'");
  if (!unused.empty())
    fail(ErrorKind::kConfig, "optimizer.groups: every group must match a trainable parameter; got none for ", unused);
}

void check_lost(const Plan& plan, const std::vector<ParameterGroupRule>& groups) {
  check_matches(plan, groups);
  std::string others;
  for (size_t g = 0; g < groups.size(); ++g) {
    const auto other = std::ranges::find_if(plan.params, [&](const ParamPlan& param) {
      return takes(groups[g], param) && !name_matches(kPromptPattern, param.name);
    });
    if (other != plan.params.end())
      others +=
          concat(others.empty() ? "" : ", ", "groups[", g, "] '", groups[g].pattern, "', which matches ", other->name);
  }
  if (!others.empty())
    fail(ErrorKind::kConfig, "optimizer.groups: with quirks.prompt_lr_ignored, groups are expected for ",
         kPromptPattern, " alone, which it loses; got ", others);
}

}  // namespace

std::vector<ParameterSettings> resolve_groups(const Plan& plan, const AdamwConfig& config) {
  check_matches(plan, config.groups);
  check_lost(plan, config.lost_groups);
  std::vector<ParameterSettings> settings(plan.params.size(), {config.lr, config.weight_decay, true});
  for (size_t p = 0; p < plan.params.size(); ++p) {
    const auto group = std::ranges::find_if(
        config.groups, [&](const ParameterGroupRule& rule) { return takes(rule, plan.params[p]); });
    if (group == config.groups.end()) continue;
    settings[p] = {group->lr.value_or(config.lr) * group->lr_scale, group->weight_decay.value_or(config.weight_decay),
                   group->follows_schedule};
  }
  return settings;
}

}  // namespace permafrost
