// Every preset and every freezing through the checker, which shares no code with the planner: the programs are right,
// and the arena is close to what a replay finds alive.
#include "parallel/plan/plan.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "configs/load.h"
#include "models/epalm/epalm_model.h"
#include "models/factory.h"
#include "parallel/plan/check.h"
#include "parallel/plan/check_gathers.h"
#include "tests/models/support.h"
#include "tests/support/compare.h"
#include "tests/support/configs.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

config::Config preset(const std::string& name, const std::vector<std::string>& overrides = {}) {
  return config::load_config(testing::configs_folder() + "/" + name + ".textproto", overrides).config;
}

std::vector<std::string> all_presets() {
  std::vector<std::string> names;
  // None where there is no folder, which PresetList says: this runs before main.
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(testing::configs_folder(), absent)) {
    const std::string name = entry.path().stem().string();
    if (entry.path().extension() == ".textproto") names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

std::vector<int64_t> buckets_of(const config::Data& data) {
  if (data.length_buckets().empty()) return {data.max_text_tokens()};
  return {data.length_buckets().begin(), data.length_buckets().end()};
}

struct Choices {
  DType compute = DType::kBF16;
  int threads = 1;
  bool reuse = true;
  bool keep = false;
};

using ModelPointer = std::shared_ptr<const Model>;

PlanRequest request_for(const ModelPointer& model, std::vector<FreezeRule> freezing, int64_t batch,
                        const Choices& choices) {
  PlanRequest request;
  request.build_graph = [=](int64_t tokens) { return model->build(choices.compute, {batch, tokens, choices.keep}); };
  request.freezing = std::move(freezing);
  request.frozen_dtype = [=](const ParamInfo&) { return choices.compute; };
  request.world.threads = choices.threads;
  request.options.reuse_memory = choices.reuse;
  request.options.keep_all_values = request.options.keep_gradients = choices.keep;
  return request;
}

Plan plan_of(const config::Config& config, const Choices& choices) {
  PlanRequest request = request_for(make_model(config), freeze_rules(config), config.train().micro_batch(), choices);
  request.buckets = buckets_of(config.data());
  return make_plan(request);
}

/// Replays every program; returns the largest peak of bytes alive that the replays found.
int64_t expect_right(const Plan& plan, const Choices& choices, const std::string& about) {
  int64_t peak = 0;
  ProgramOptions options;
  options.workers = choices.threads;
  options.keep_all_values = options.keep_gradients = choices.keep;
  for (size_t b = 0; b < plan.programs.size(); ++b) {
    const ProgramReport report = replay_program(plan.graphs[b], plan.needs[b], plan.programs[b], options);
    EXPECT_TRUE(report.problems.empty()) << about << ", bucket " << plan.buckets[b] << ": " << report.problems.front();
    peak = std::max(peak, report.peak_live_bytes);
  }
  return peak;
}

std::vector<Choices> all_choices() {
  std::vector<Choices> list;
  for (const DType compute : {DType::kF32, DType::kBF16})
    for (const int threads : {1, 2})
      for (const bool reuse : {true, false}) list.push_back({compute, threads, reuse, false});
  return list;
}

std::string describe(const Choices& c) {
  return concat(to_string(c.compute), ", ", c.threads, " threads", c.reuse ? "" : ", no reuse",
                c.keep ? ", keeping" : "");
}

class PresetPrograms : public ::testing::TestWithParam<std::string> {};

TEST_P(PresetPrograms, AreRightAndTheArenaIsCloseToWhatIsAlive) {
  const config::Config config = preset(GetParam());
  for (const Choices& choices : all_choices()) {
    const Plan plan = plan_of(config, choices);
    ASSERT_EQ(plan.programs.size(), buckets_of(config.data()).size());
    const int64_t peak = expect_right(plan, choices, describe(choices));
    EXPECT_GE(plan.memory.arena, peak) << describe(choices);
    // One arena for all buckets, so the largest counts.
    if (choices.reuse) {
      EXPECT_LE(static_cast<double>(plan.memory.arena), 1.05 * static_cast<double>(peak)) << describe(choices);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PresetPrograms, ::testing::ValuesIn(all_presets()), [](const auto& param) {
  std::string name = param.param;
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

TEST(PresetGathers, AreRightForEveryPresetAndMethod) {
  for (const std::string& name : all_presets())
    for (const GatherChoice gather : {GatherChoice::kInline, GatherChoice::kPrefetch})
      for (const int nodes : {1, 2}) {
        const config::Config config = preset(name);
        PlanRequest request = request_for(make_model(config), freeze_rules(config), config.train().micro_batch(), {});
        request.buckets = buckets_of(config.data());
        request.world.ranks = 4;
        request.world.nodes = nodes;
        request.frozen_policy = PolicyChoice::kSharded;
        request.gather = gather;
        const Plan plan = make_plan(request);
        EXPECT_EQ(check_gathers(plan), std::vector<std::string>()) << name;
        EXPECT_EQ(plan.programs[0].gathers.empty(), plan.total_params == plan.trainable_params) << name;
      }
}

TEST(PresetList, IsTheWholeFolder) { EXPECT_GE(all_presets().size(), 7u); }

/// Every three of the four choices meet in every way (an orthogonal array of strength three: half of all).
void expect_right_with(const ModelPointer& model, const std::vector<FreezeRule>& freezing, const std::string& about) {
  for (Choices choices : all_choices()) {
    choices.keep = (choices.compute == DType::kBF16) ^ (choices.threads == 2) ^ choices.reuse;
    PlanRequest request = request_for(model, freezing, 2, choices);
    request.buckets = {5, 9};
    expect_right(make_plan(request), choices, about + ", " + describe(choices));
  }
}

TEST(FreezingPrograms, AreRightWhateverIsTrained) {
  for (const char* pattern : {"*",
                              "connector.*",
                              "connector.1.weight",
                              "prompt_module.*",
                              "prompt_module.prefix_embedding.0.weight",
                              "model_text.*",
                              "model_text.*.layers.4.*",
                              "*adapter_scale",
                              "vision.*",
                              "vision.blocks.1.*",
                              "vision.cls_token",
                              "vision.norm.*",
                              "text.*",
                              "text.model.decoder.embed_tokens.weight",
                              "text.model.decoder.embed_positions.weight",
                              "text.model.decoder.project_in.weight",
                              "text.model.decoder.project_out.weight",
                              "text.model.decoder.layers.0.fc?.bias",
                              "text.model.decoder.layers.3.self_attn.v_proj.*",
                              "*layer_norm*",
                              "*.bias"})
    expect_right_with(std::make_shared<EpalmModel>(testing::small_epalm()), {{pattern, true}}, pattern);
}

TEST(FreezingPrograms, AreRightForEveryVariantOfTheModel) {
  for (const auto prompt : {EpalmConfig::Prompt::kNone, EpalmConfig::Prompt::kTable, EpalmConfig::Prompt::kMlp})
    for (const auto kind : {AdaptorKind::kNormal, AdaptorKind::kParallel, AdaptorKind::kScaledParallel})
      for (const auto location : {AdaptorLocation::kMlp, AdaptorLocation::kAttention})
        for (const bool norm_before : {true, false}) {
          EpalmConfig model = testing::small_epalm();
          model.prompt = prompt;
          model.adaptor->kind = kind;
          model.adaptor->location = location;
          model.text.norm_before = model.text.final_norm = norm_before;
          model.frozen_dropout = norm_before;
          model.shared_connector = !norm_before;
          model.vis_row = norm_before ? EpalmConfig::VisRow::kPublished : EpalmConfig::VisRow::kCausal;
          expect_right_with(std::make_shared<EpalmModel>(model), epalm_freezing(model),
                            concat("variant ", static_cast<int>(prompt), static_cast<int>(kind),
                                   static_cast<int>(location), norm_before));
        }
}

TEST(FreezingPrograms, AreRightForTheProjector) {
  const EpalmConfig parts = testing::small_epalm();
  for (const auto kind : {ProjectorConfig::Kind::kLinear, ProjectorConfig::Kind::kMlp}) {
    const auto model = std::make_shared<ProjectorModel>(ProjectorConfig{parts.vision, parts.text, kind, 0});
    for (const char* pattern : {"projector.*", "projector.0.bias", "*", "vision.*", "vision.blocks.2.*", "text.*",
                                "text.model.decoder.embed_positions.weight", "text.model.decoder.project_in.weight"})
      expect_right_with(model, {{pattern, true}}, concat("projector ", static_cast<int>(kind), ' ', pattern));
  }
}

TEST(FreezingPrograms, AreRightForAnAdaptedLanguageModel) {
  const EpalmConfig parts = testing::small_epalm();
  for (const auto kind : {AdaptorKind::kNormal, AdaptorKind::kParallel, AdaptorKind::kScaledParallel})
    for (const auto location : {AdaptorLocation::kMlp, AdaptorLocation::kAttention}) {
      const AdaptorConfig adaptor{kind, 3, true, location};
      const auto model = std::make_shared<LanguageModel>(LanguageModelConfig{parts.text, 0, adaptor});
      for (const char* pattern : {"model_text.*", "model_text.*.layers.4.*", "*", "text.*"})
        expect_right_with(model, {{pattern, true}},
                          concat("adapted ", static_cast<int>(kind), static_cast<int>(location), ' ', pattern));
    }
}

TEST(PlanHash, ChangesWithConstantsOfTheConfiguration) {
  const auto hashes = [](std::vector<std::string> overrides) {
    overrides.insert(overrides.end(), {"train.final_check.loss=false", "train.final_check.exchanged_images=false"});
    const Plan plan = plan_of(preset("photos_small", overrides), {});
    return std::pair(plan.hash(), plan.graph_hash());
  };
  const auto base = hashes({});
  EXPECT_EQ(base, hashes({}));
  for (const char* change :
       {"loss.label_smoothing=0.1", "model.epalm.vision.layer_norm_eps=1e-3", "model.epalm.text.layer_norm_eps=1e-3",
        "quirks.vis_row=PUBLISHED", "model.epalm.text.heads=2", "quirks.frozen_dropout=true"}) {
    const auto other = hashes({change});
    EXPECT_NE(base.first, other.first) << change;
    EXPECT_NE(base.second, other.second) << change;
  }
}

}  // namespace
}  // namespace permafrost
