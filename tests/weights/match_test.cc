#include "core/weights/match.h"

#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

const std::vector<RequiredTensor> kRequired{{"model.embed.weight", {4, 3}}, {"model.norm.bias", {3}}};
const MatchRules kRules{{"model."}, {"head.*"}, {{"lm_head.weight", "model.embed.weight"}}};

NamedTensor embedding(const std::string& name, DType dtype = DType::kF16, double third = 7) {
  return {name, make_tensor(dtype, {4, 3}, {1, 2, 3, 4, 5, 6, third, 8, 9, 10, 11, 12})};
}
NamedTensor bias(const std::string& name) { return {name, make_tensor(DType::kBF16, {3}, {1, 2, 3})}; }

class MatchParameters : public ::testing::Test {
 protected:
  LoadReport match(const std::vector<NamedTensor>& tensors, const MatchRules& rules = kRules,
                   const std::vector<RequiredTensor>& required = kRequired) {
    write_tensors(folder_ / "w.safetensors", tensors);
    source_ = std::make_unique<WeightSource>(WeightSource::open(folder_ / "w.safetensors"));
    return match_parameters(required, *source_, rules);
  }
  ::testing::AssertionResult refused(const std::vector<NamedTensor>& tensors, std::vector<std::string> parts,
                                     const MatchRules& rules = kRules,
                                     const std::vector<RequiredTensor>& required = kRequired) {
    parts.push_back(folder_ / "w.safetensors");
    parts.push_back("weights must fit the model exactly");
    return throws_error([&] { match(tensors, rules, required); }, ErrorKind::kWeights, parts);
  }

  ScratchFolder folder_;
  std::unique_ptr<WeightSource> source_;
};

TEST_F(MatchParameters, TakesNamesWithAndWithoutPrefix) {
  for (const std::string& prefix : {std::string("model."), std::string(""), std::string("model.model.")}) {
    const LoadReport report = match({embedding(prefix + "embed.weight"), bias(prefix + "norm.bias")});
    ASSERT_EQ(report.matches.size(), 2u);
    EXPECT_EQ(report.matches[0].name, "model.embed.weight");
    EXPECT_EQ(report.matches[0].tensor->stored.name, prefix + "embed.weight");
    EXPECT_EQ(report.matches[1].tensor, source_->find(prefix + "norm.bias"));
    EXPECT_EQ(report.elements, 15);
    EXPECT_EQ(report.file_bytes, 30);
  }
}

TEST_F(MatchParameters, TakesOtherNames) {
  const LoadReport report = match({embedding("model.old.weight"), bias("norm.bias")}, kRules,
                                  {{"model.embed.weight", {4, 3}, {"old.weight"}}, {"model.norm.bias", {3}}});
  EXPECT_EQ(report.matches[0].tensor->stored.name, "model.old.weight");
}

TEST_F(MatchParameters, ListsKnownUnused) {
  const LoadReport report =
      match({embedding("embed.weight"), bias("norm.bias"), bias("head.weight"), bias("model.head.bias")});
  EXPECT_EQ(report.unused, (std::vector<std::string>{"head.weight", "model.head.bias"}));
  EXPECT_EQ(report.str(), "2 tensors, 15 values, 30 bytes; known and not used: head.weight, model.head.bias");
}

TEST_F(MatchParameters, NamesEveryProblemAtOnce) {
  EXPECT_TRUE(refused({{"embed.weight", make_tensor(DType::kF16, {3, 4}, std::vector<double>(12, 1))},
                       bias("header.weight"),
                       bias("zzz")},
                      {"4 problems", "misshapen: 'model.embed.weight' must be (4, 3); got (3, 4)",
                       "missing: 'model.norm.bias' (3)", "extra: 'header.weight' (3) BF16", "extra: 'zzz'"}));
}

TEST_F(MatchParameters, CutsNoList) {
  std::vector<RequiredTensor> required;
  for (int i = 0; i < 50; ++i) required.push_back({concat("w", i), {1}});
  std::vector<std::string> parts{"51 problems", "extra: 'b'"};
  for (const RequiredTensor& tensor : required) parts.push_back(concat("missing: '", tensor.name, "' (1)\n"));
  EXPECT_TRUE(refused({bias("b")}, parts, {}, required));
}

TEST_F(MatchParameters, RefusesWrongDTypes) {
  EXPECT_TRUE(refused({embedding("embed.weight"), {"norm.bias", make_tensor(DType::kI32, {3}, {1, 2, 3})}},
                      {"1 problem\n", "wrong dtype: 'model.norm.bias' must be F32, F16, BF16 or F64; got I32"}));
}

TEST_F(MatchParameters, RefusesAmbiguity) {
  EXPECT_TRUE(refused({embedding("embed.weight"), embedding("model.embed.weight"), bias("norm.bias")},
                      {"ambiguous: 'model.embed.weight' is both 'model.embed.weight' and 'embed.weight'"}));
  EXPECT_TRUE(refused({bias("norm.bias")}, {"ambiguous: 'norm.bias' is both 'model.norm.bias' and 'norm.bias'"}, kRules,
                      {{"model.norm.bias", {3}}, {"norm.bias", {3}}}));
}

TEST_F(MatchParameters, FindsTiedTensorsByHeadersAlone) {
  const LoadReport report =
      match({embedding("embed.weight"), bias("norm.bias"), embedding("model.lm_head.weight", DType::kF32, 7.5)});
  EXPECT_EQ(report.tied, (std::vector<std::string>{"model.lm_head.weight"}));
  EXPECT_EQ(report.matches[0].aliases, (std::vector<const SourceTensor*>{source_->find("model.lm_head.weight")}));
  EXPECT_TRUE(report.matches[1].aliases.empty());
  EXPECT_EQ(report.str(), "2 tensors, 15 values, 30 bytes; stored twice: model.lm_head.weight");
  EXPECT_TRUE(refused({embedding("embed.weight"), bias("norm.bias"), bias("lm_head.weight")},
                      {"untied: 'lm_head.weight' must equal 'model.embed.weight' (4, 3); got (3) BF16"}));
  EXPECT_TRUE(
      refused({bias("norm.bias"), embedding("lm_head.weight")}, {"1 problem\n", "missing: 'model.embed.weight'"}));
}

TEST_F(MatchParameters, NamesTheShard) {
  write_tensors(folder_ / "s1", {embedding("embed.weight")});
  write_tensors(folder_ / "s2", {{"norm.bias", make_tensor(DType::kF32, {4}, {1, 2, 3, 4})}});
  write_text(folder_ / "m.index.json", R"({"weight_map": {"embed.weight": "s1", "norm.bias": "s2"}})");
  const WeightSource source = WeightSource::open(folder_ / "m.index.json");
  EXPECT_TRUE(throws_error([&] { match_parameters(kRequired, source, kRules); }, ErrorKind::kWeights,
                           {"got (4) [" + (folder_ / "s2") + "]"}));
}

TEST(MatchesPattern, StarsStandForAnything) {
  for (const auto& [name, pattern, expected] :
       std::vector<std::tuple<const char*, const char*, bool>>{{"head.weight", "head.*", true},
                                                               {"head", "head.*", false},
                                                               {"ahead.w", "head.*", false},
                                                               {"a", "a", true},
                                                               {"a", "b", false},
                                                               {"", "*", true},
                                                               {"abc", "*", true},
                                                               {"a.b.c", "a*c", true},
                                                               {"a.b.cd", "a*c", false},
                                                               {"axbxc", "a*b*c", true},
                                                               {"ab", "a*b*b", false},
                                                               {"abb", "a*b*b", true},
                                                               {"layers.3.fc1", "*.3.*", true},
                                                               {"layers.13.fc1", "*.3.*", false},
                                                               {"aab", "*ab", true},
                                                               {"a", "a*a", false}})
    EXPECT_EQ(matches_pattern(name, pattern), expected) << name << " " << pattern;
}

}  // namespace
}  // namespace permafrost::testing
