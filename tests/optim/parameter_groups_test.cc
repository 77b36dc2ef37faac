#include "optim/parameter_groups.h"

#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

Plan plan() {
  PlanRequest r;
  r.build_graph = [](int64_t) { return testing::toy_transformer({}); };
  r.buckets = {5};
  r.freezing = {{"blocks.*", true}};
  return make_plan(r);
}

ParameterSettings of(const Plan& plan, const std::vector<ParameterSettings>& settings, const std::string& name) {
  return settings.at(static_cast<size_t>(plan.graphs[0].find_param(name)));
}

TEST(ParameterGroups, FirstMatchWins) {
  const Plan p = plan();
  AdamwConfig c;
  ParameterGroupRule vectors{"*", ParameterGroupRule::Rank::kVectors, {}, 0.5, 0.0, true};
  ParameterGroupRule block{"blocks.1.*", ParameterGroupRule::Rank::kAny, 3e-4, 1, {}, false};
  c.groups = {vectors, block};
  const auto settings = resolve_groups(p, c);
  EXPECT_DOUBLE_EQ(of(p, settings, "blocks.1.qkv.bias").lr, 0.5 * c.lr);
  EXPECT_DOUBLE_EQ(of(p, settings, "blocks.1.qkv.bias").weight_decay, 0.0);
  EXPECT_DOUBLE_EQ(of(p, settings, "blocks.1.qkv.weight").lr, 3e-4);
  EXPECT_DOUBLE_EQ(of(p, settings, "blocks.1.qkv.weight").weight_decay, c.weight_decay);
  EXPECT_FALSE(of(p, settings, "blocks.1.qkv.weight").follows_schedule);
  EXPECT_DOUBLE_EQ(of(p, settings, "blocks.0.qkv.weight").lr, c.lr);
  EXPECT_TRUE(of(p, settings, "blocks.0.qkv.weight").follows_schedule);
}

TEST(ParameterGroups, AGroupWithoutParametersIsAnError) {
  AdamwConfig c;
  c.groups = {{"embed.weight", ParameterGroupRule::Rank::kAny, {}, 1, {}, true},
              {"blocks.*.norm1.*", ParameterGroupRule::Rank::kMatrices, {}, 1, {}, true}};
  EXPECT_TRUE(testing::throws_error([&] { resolve_groups(plan(), c); }, ErrorKind::kConfig,
                                    {"groups[0] 'embed.weight'", "groups[1] 'blocks.*.norm1.*'"}));
}

TEST(ParameterGroups, ARuleThatNoUserWroteMayBeWithoutParameters) {
  AdamwConfig c;
  c.groups = {{"embed.weight", ParameterGroupRule::Rank::kAny, {}, 1, {}, true, false}};
  EXPECT_DOUBLE_EQ(of(plan(), resolve_groups(plan(), c), "blocks.0.qkv.weight").lr, c.lr);
}

TEST(ParameterGroups, OnlyGroupsOfPromptsAreLost) {
  AdamwConfig c;
  c.lost_groups = {{"blocks.1.*", ParameterGroupRule::Rank::kAny, {}, 1, {}, true}};
  EXPECT_TRUE(testing::throws_error([&] { resolve_groups(plan(), c); }, ErrorKind::kConfig,
                                    {"with quirks.prompt_lr_ignored, groups are expected for prompt_module.* alone",
                                     "got groups[0] 'blocks.1.*', which matches blocks.1."}));
  c.lost_groups[0].pattern = "prompt_module.*";
  EXPECT_TRUE(testing::throws_error(
      [&] { resolve_groups(plan(), c); }, ErrorKind::kConfig,
      {"every group must match a trainable parameter; got none for groups[0] 'prompt_module.*'"}));
}

}  // namespace
}  // namespace permafrost
