#include "optim/factory.h"

#include <utility>

namespace permafrost {

namespace {

ParameterGroupRule make_rule(const config::ParameterGroup& group) {
  ParameterGroupRule rule;
  rule.pattern = group.pattern();
  if (group.rank() == config::ParameterGroup::VECTORS) rule.rank = ParameterGroupRule::Rank::kVectors;
  if (group.rank() == config::ParameterGroup::MATRICES) rule.rank = ParameterGroupRule::Rank::kMatrices;
  if (group.has_lr()) rule.lr = group.lr();
  rule.lr_scale = group.lr_scale();
  if (group.has_weight_decay()) rule.weight_decay = group.weight_decay();
  rule.follows_schedule = group.schedule() == config::ParameterGroup::FOLLOW;
  return rule;
}

}  // namespace

AdamwConfig make_adamw_config(const config::Config& config) {
  const config::Optimizer& from = config.optimizer();
  AdamwConfig to;
  to.lr = from.lr();
  to.beta1 = from.beta1();
  to.beta2 = from.beta2();
  to.eps = from.eps();
  to.weight_decay = from.weight_decay();
  to.clip_norm = from.clip_norm();
  for (const config::ParameterGroup& group : from.groups()) to.groups.push_back(make_rule(group));
  if (config.quirks().prompt_lr_ignored()) {
    ParameterGroupRule vectors, matrices;
    vectors.pattern = matrices.pattern = "*";
    vectors.must_match = matrices.must_match = false;
    vectors.rank = ParameterGroupRule::Rank::kVectors;
    vectors.weight_decay = 0.0;
    matrices.rank = ParameterGroupRule::Rank::kMatrices;
    matrices.follows_schedule = false;
    to.lost_groups = std::exchange(to.groups, {vectors, matrices});
  }
  return to;
}

ScheduleConfig make_schedule_config(const config::Config& config) {
  const config::Schedule& from = config.schedule();
  ScheduleConfig to;
  switch (from.kind()) {
    case config::Schedule::PUBLISHED:
      to.kind = ScheduleKind::kPublished;
      break;
    case config::Schedule::COSINE:
      to.kind = ScheduleKind::kCosine;
      break;
    case config::Schedule::CONSTANT:
      to.kind = ScheduleKind::kConstant;
      break;
  }
  to.peak_lr = config.optimizer().lr();
  to.warmup_lr = from.warmup_lr();
  to.min_lr = from.min_lr();
  to.warmup_steps = from.warmup_steps();
  to.epochs = from.epochs();
  to.plateau_steps = from.plateau_steps();
  to.max_steps = config.train().max_steps();
  return to;
}

}  // namespace permafrost
