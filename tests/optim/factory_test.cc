// From the configuration to what the optimizer does to each parameter.
#include "optim/factory.h"

#include <gtest/gtest.h>

#include "configs/load.h"
#include "models/factory.h"
#include "tests/support/compare.h"
#include "tests/support/configs.h"

namespace permafrost {
namespace {

/// The quickstart model with a prompt; connectors and prompt train.
config::Config configuration(const std::vector<std::string>& more) {
  std::vector<std::string> overrides{"model.epalm.prompt={kind: MLP length: 2}", "freeze=", "optimizer.lr=1e-3",
                                     "optimizer.weight_decay=0.02"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return config::load_config(testing::configs_folder() + "/quickstart.textproto", overrides).config;
}

Plan plan_of(const config::Config& config) {
  PlanRequest request;
  request.build_graph = [model = epalm_config(config)](int64_t tokens) {
    return build_epalm(model, DType::kF32, {2, tokens, false});
  };
  request.buckets = {8};
  request.freezing = freeze_rules(config);
  return make_plan(request);
}

struct Resolved {
  Plan plan;
  std::vector<ParameterSettings> settings;
  const ParameterSettings& of(const std::string& name) const {
    const int index = plan.graphs[0].find_param(name);
    EXPECT_GE(index, 0) << name;
    EXPECT_TRUE(plan.params.at(static_cast<size_t>(index)).trainable) << name;
    return settings.at(static_cast<size_t>(index));
  }
};
Resolved resolve(const std::vector<std::string>& more) {
  const config::Config config = configuration(more);
  Plan plan = plan_of(config);
  auto settings = resolve_groups(plan, make_adamw_config(config));
  return {std::move(plan), std::move(settings)};
}

void expect_settings(const ParameterSettings& got, double lr, double decay, bool follows, const char* what) {
  EXPECT_DOUBLE_EQ(got.lr, lr) << what;
  EXPECT_DOUBLE_EQ(got.weight_decay, decay) << what;
  EXPECT_EQ(got.follows_schedule, follows) << what;
}

const std::string kPromptLr = "optimizer.groups+={pattern: \"prompt_module.*\" lr: 5e-5 schedule: CONSTANT}";
const std::string kPromptTable = "prompt_module.prefix_embedding.0.weight",
                  kPromptBias = "prompt_module.prefix_embedding.1.bias";

TEST(OptimizerFactory, WithoutTheQuirkGroupsAreWhatTheySay) {
  const Resolved r =
      resolve({kPromptLr, "optimizer.groups+={pattern: \"connector*\" rank: VECTORS weight_decay: 0 lr_scale: 2}"});
  expect_settings(r.of(kPromptTable), 5e-5, 0.02, false, "prompt table");
  expect_settings(r.of(kPromptBias), 5e-5, 0.02, false, "prompt bias");
  expect_settings(r.of("connector.0.bias"), 2e-3, 0.0, true, "connector bias");
  expect_settings(r.of("connector.0.weight"), 1e-3, 0.02, true, "connector weight");
}

TEST(OptimizerFactory, WithTheQuirkThePromptLosesItsLearningRate) {
  // The captioning scripts: vectors without decay on the schedule, every matrix with decay at the constant lr.
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{"quirks.prompt_lr_ignored=true"}, {"quirks.prompt_lr_ignored=true", kPromptLr}}) {
    const Resolved r = resolve(more);
    expect_settings(r.of(kPromptTable), 1e-3, 0.02, false, "prompt table");
    expect_settings(r.of(kPromptBias), 1e-3, 0.0, true, "prompt bias");
    expect_settings(r.of("connector.0.bias"), 1e-3, 0.0, true, "connector bias");
    expect_settings(r.of("connector.0.weight"), 1e-3, 0.02, false, "connector weight");
  }
  EXPECT_EQ(make_adamw_config(configuration({"quirks.prompt_lr_ignored=true", kPromptLr})).lost_groups.size(), 1u);
}

TEST(OptimizerFactory, WithTheQuirkOtherGroupsAreRefused) {
  EXPECT_TRUE(testing::throws_error(
      [] {
        resolve({"quirks.prompt_lr_ignored=true", kPromptLr, "optimizer.groups+={pattern: \"connector*\" lr: 1e-4}"});
      },
      ErrorKind::kConfig,
      {"groups are expected for prompt_module.* alone", "got groups[1] 'connector*', which matches connector."}));
  EXPECT_TRUE(testing::throws_error(
      [] {
        resolve({"quirks.prompt_lr_ignored=true", "optimizer.groups+={pattern: \"promt_module.*\" lr: 1e-4}"});
      },
      ErrorKind::kConfig, {"must match a trainable parameter; got none for groups[0] 'promt_module.*'"}));
}

TEST(OptimizerFactory, TheQuirkNeedsNoVectors) {
  const Resolved r =
      resolve({"quirks.prompt_lr_ignored=true", "freeze+={pattern: \"connector.*.weight\" trainable: true}",
               "freeze+={pattern: \"*\" trainable: false}"});
  expect_settings(r.of("connector.0.weight"), 1e-3, 0.02, false, "connector weight");
}

TEST(OptimizerFactory, ScheduleArrives) {
  const ScheduleConfig s = make_schedule_config(
      configuration({"schedule={kind: COSINE warmup_lr: 1e-5 min_lr: 2e-6 warmup_steps: 7}", "train.max_steps=70"}));
  EXPECT_EQ(s.kind, ScheduleKind::kCosine);
  EXPECT_DOUBLE_EQ(s.peak_lr, 1e-3);
  EXPECT_DOUBLE_EQ(s.warmup_lr, 1e-5);
  EXPECT_DOUBLE_EQ(s.min_lr, 2e-6);
  EXPECT_EQ(s.warmup_steps, 7);
  EXPECT_EQ(s.max_steps, 70);
}

}  // namespace
}  // namespace permafrost
