#include "configs/validate.h"

#include <cmath>

#include "configs/section.h"
#include "configs/validate_data.h"
#include "configs/validate_evaluation.h"
#include "configs/validate_model.h"
#include "core/base/check.h"

namespace permafrost::config {

namespace {

void check_train(const Train& train, const Section& s) {
  s.given(train.has_max_steps(), "max_steps", train.max_steps(), 1, kMost);
  const bool global = s.whole("global_batch", train.global_batch(), 1, 1 << 24);
  if (s.whole("micro_batch", train.micro_batch(), 1, 1 << 16) && global)
    s.multiple("global_batch", train.global_batch(), "micro_batch", train.micro_batch());
  s.whole("final_check.samples", train.final_check().samples(), 0, kMost);
  if (train.final_check().exchanged_images() && !train.final_check().loss())
    s.problems().expected(s.at("final_check.exchanged_images"), "false where final_check.loss is false", "true");
}

void check_groups(const Optimizer& optimizer, const Section& s) {
  for (int i = 0; i < optimizer.groups_size(); ++i) {
    const ParameterGroup& group = optimizer.groups(i);
    const Section g(s.at(concat("groups[", i, "]")), s.problems());
    if (group.pattern().empty()) s.problems().expected(g.at("pattern"), "a pattern of parameter names", "none");
    if (group.has_lr()) g.not_negative("lr", group.lr());
    if (group.has_weight_decay()) g.not_negative("weight_decay", group.weight_decay());
    g.not_negative("lr_scale", group.lr_scale());
    if (group.has_lr() && group.lr_scale() != 1)
      s.problems().expected(g.at("lr_scale"), "1 where lr is given too (one of the two)", group.lr_scale());
  }
}

void check_optimizer(const Config& config, const Section& s) {
  const Optimizer& optimizer = config.optimizer();
  s.above_zero("lr", optimizer.lr());
  s.below("beta1", optimizer.beta1(), 0, 1);
  s.below("beta2", optimizer.beta2(), 0, 1);
  s.above_zero("eps", optimizer.eps());
  s.not_negative("weight_decay", optimizer.weight_decay());
  s.not_negative("clip_norm", optimizer.clip_norm());
  check_groups(optimizer, s);
}

void check_schedule(const Config& config, const Section& s) {
  const Schedule& schedule = config.schedule();
  // Under PUBLISHED and with a warm-up, the first value; under CONSTANT without one, nobody reads them.
  const bool warms = schedule.kind() == Schedule::PUBLISHED || schedule.warmup_steps() > 0;
  const double lr = config.optimizer().lr();
  if (warms && !(schedule.warmup_lr() >= 0 && schedule.warmup_lr() <= lr))
    s.problems().expected(s.at("warmup_lr"), concat("0 to optimizer.lr = ", lr), schedule.warmup_lr());
  if (schedule.kind() != Schedule::CONSTANT && !(schedule.min_lr() >= 0 && schedule.min_lr() <= lr))
    s.problems().expected(s.at("min_lr"), concat("0 to optimizer.lr = ", lr), schedule.min_lr());
  if (schedule.kind() == Schedule::PUBLISHED) {
    s.whole("epochs", schedule.epochs(), 1, 1 << 20);
    s.whole("plateau_steps", schedule.plateau_steps(), 1, 1 << 30);
    if (schedule.warmup_steps() != 0)
      s.problems().expected(s.at("warmup_steps"),
                            "0 where kind is PUBLISHED, whose warm-up is plateau_steps long four times",
                            schedule.warmup_steps());
  } else if (config.train().has_max_steps()) {
    s.whole("warmup_steps", schedule.warmup_steps(), 0, config.train().max_steps());
  }
}

void check_parallel(const Parallel& parallel, const Section& s) {
  s.whole("threads", parallel.threads(), 0, 1024);
  s.whole("headroom_bits", parallel.headroom_bits(), 1, 24);
  s.whole("timeout_s", parallel.timeout_s(), 1, 86400);
  s.whole("memory_limit_bytes", parallel.memory_limit_bytes(), 0, kMost);
  s.whole("ranks_per_node", parallel.ranks_per_node(), 0, 1024);
  for (int i = 0; i < parallel.policies_size(); ++i)
    if (parallel.policies(i).unit().empty())
      s.problems().expected(s.at(concat("policies[", i, "].unit")), "the name of a unit, or a pattern", "none");
}

void check_loss_scale(const LossScale& scale, const Section& s) {
  int exponent = 0;
  const bool power = scale.initial() > 0 && std::frexp(scale.initial(), &exponent) == 0.5;
  if (!power || scale.initial() < 0x1p-10 || scale.initial() > 0x1p24)
    s.problems().expected(s.at("initial"), "a power of two, 2^-10 to 2^24 = 16777216", scale.initial());
  s.whole("growth_steps", scale.growth_steps(), 1, kMost);
}

void check_rest(const Config& config, Problems& problems) {
  for (int i = 0; i < config.freeze_size(); ++i) {
    const std::string path = concat("freeze[", i, "]");
    if (config.freeze(i).pattern().empty())
      problems.expected(path + ".pattern", "a pattern of parameter names", "none");
    if (!config.freeze(i).has_trainable()) problems.expected(path + ".trainable", "true or false", "none");
  }
  const Precision& precision = config.precision();
  if (precision.compute() == Compute::BF16 &&
      (precision.frozen_storage() == FrozenStorage::FILE || precision.frozen_storage() == FrozenStorage::FP32))
    problems.expected("precision.frozen_storage", "FOLLOW or BF16 where precision.compute is BF16",
                      FrozenStorage::Kind_Name(precision.frozen_storage()));
  if (precision.f32_products() == F32Products::TF32 && config.parallel().device() != Parallel::CUDA)
    problems.expected("precision.f32_products", "FP32 where parallel.device is CPU (TF32 is a mode of GPUs)",
                      F32Products::Kind_Name(precision.f32_products()));
  if (precision.compute() == Compute::FP16 && precision.frozen_storage() != FrozenStorage::FOLLOW)
    problems.expected("precision.frozen_storage", "FOLLOW where precision.compute is FP16",
                      FrozenStorage::Kind_Name(precision.frozen_storage()));
  check_loss_scale(precision.loss_scale(), Section("precision.loss_scale", problems));
  const Section loss("loss", problems);
  loss.above_zero("scale", config.loss().scale());
  loss.below("label_smoothing", config.loss().label_smoothing(), 0, 1);
  const Section checkpoint("checkpoint", problems);
  checkpoint.whole("every_steps", config.checkpoint().every_steps(), 0, kMost);
  checkpoint.whole("keep", config.checkpoint().keep(), 1, 1 << 20);
  Section("logging", problems).whole("every_steps", config.logging().every_steps(), 1, kMost);
}

}  // namespace

void validate(const Config& config, Problems& problems) {
  check_model(config, problems);
  check_data(config, problems);
  check_train(config.train(), Section("train", problems));
  check_optimizer(config, Section("optimizer", problems));
  check_schedule(config, Section("schedule", problems));
  check_parallel(config.parallel(), Section("parallel", problems));
  check_rest(config, problems);
  check_validation(config, problems);
  check_evaluation(config, problems);
}

}  // namespace permafrost::config
