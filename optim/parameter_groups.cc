#include "optim/parameter_groups.h"

namespace permafrost {

std::vector<ParameterSettings> resolve_groups(const Plan& plan, const AdamwConfig& config) {
  std::vector<ParameterSettings> settings(plan.params.size(), {config.lr, config.weight_decay, true});
  std::vector<bool> used(config.groups.size(), false);
  for (size_t p = 0; p < plan.params.size(); ++p) {
    const ParamPlan& param = plan.params[p];
    if (!param.trainable) continue;
    bool decided = false;
    for (size_t g = 0; g < config.groups.size(); ++g) {
      const ParameterGroupRule& group = config.groups[g];
      const bool vector = param.shape.rank() <= 1;
      if (group.rank == ParameterGroupRule::Rank::kVectors && !vector) continue;
      if (group.rank == ParameterGroupRule::Rank::kMatrices && vector) continue;
      if (!name_matches(group.pattern, param.name)) continue;
      used[g] = true;
      if (decided) continue;
      decided = true;
      settings[p] = {group.lr.value_or(config.lr) * group.lr_scale, group.weight_decay.value_or(config.weight_decay),
                     group.follows_schedule};
    }
  }
  std::string unused;
  for (size_t g = 0; g < used.size(); ++g)
    if (!used[g]) unused += concat(unused.empty() ? "" : ", ", "groups[", g, "] '", config.groups[g].pattern, "'");
  if (!unused.empty())
    fail(ErrorKind::kConfig, "optimizer.groups: every group must match a trainable parameter; got none for ", unused);
  return settings;
}

}  // namespace permafrost
