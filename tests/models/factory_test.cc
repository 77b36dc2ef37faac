#include "models/factory.h"

#include <gtest/gtest.h>

#include "configs/load.h"
#include "tests/support/compare.h"
#include "tests/support/configs.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

config::Config preset(const std::string& name, const std::vector<std::string>& overrides = {}) {
  return config::load_config(configs_folder() + "/" + name + ".textproto", overrides).config;
}

std::pair<int64_t, int64_t> trainable_and_total(const config::Config& config) {
  const Graph graph = make_model(config)->build(DType::kBF16, {2, 8, false});
  const std::vector<bool> trainable = resolve_freezing(graph, freeze_rules(config));
  std::pair<int64_t, int64_t> counts{0, 0};
  for (size_t p = 0; p < trainable.size(); ++p) {
    counts.second += graph.params()[p].shape.elements();
    if (trainable[p]) counts.first += graph.params()[p].shape.elements();
  }
  return counts;
}

TEST(Factory, PresetsHaveThePublishedCounts) {
  using Counts = std::pair<int64_t, int64_t>;
  EXPECT_EQ(trainable_and_total(preset("epalm_vitb_opt125m_coco")), (Counts{4'732'416, 215'770'368}));
  EXPECT_EQ(trainable_and_total(preset("epalm_vitb_opt2.7b_coco")), (Counts{24'949'760, 2'762'345'216}));
  EXPECT_EQ(trainable_and_total(preset("epalm_vitb_opt2.7b_vqa")), (Counts{24'949'760, 2'762'345'216}));
  EXPECT_EQ(trainable_and_total(preset("epalm_ptl_vitl_opt6.7b_coco")), (Counts{4'239'360, 6'966'014'976}));
  EXPECT_EQ(trainable_and_total(preset("epalm_ptl_vitl_opt6.7b_vqa")), (Counts{4'239'360, 6'966'014'976}));
  EXPECT_EQ(trainable_and_total(preset("epalm_lin_vitb_opt350m_coco")), (Counts{787'456, 417'782'528}));
}

/// The schema's published sizes and those of the models are written down twice; they must agree.
TEST(Factory, PublishedSizesOfTheSchemaAreThoseOfTheModels) {
  const std::vector<std::pair<std::string, OptSize>> sizes{{"OPT_125M", OptSize::k125M},
                                                           {"OPT_350M", OptSize::k350M},
                                                           {"OPT_1_3B", OptSize::k1_3B},
                                                           {"OPT_2_7B", OptSize::k2_7B},
                                                           {"OPT_6_7B", OptSize::k6_7B}};
  for (const auto& [name, size] : sizes) {
    const OptConfig got = epalm_config(preset("epalm_vitb_opt125m_coco", {"model.epalm.text.size=" + name})).text,
                    want = OptConfig::of(size);
    EXPECT_EQ(got.vocab, want.vocab) << name;
    EXPECT_EQ(got.layers, want.layers) << name;
    EXPECT_EQ(got.hidden, want.hidden) << name;
    EXPECT_EQ(got.heads, want.heads) << name;
    EXPECT_EQ(got.ffn, want.ffn) << name;
    EXPECT_EQ(got.word_embed_proj_dim, want.word_embed_proj_dim) << name;
    EXPECT_EQ(got.norm_before, want.norm_before) << name;
    EXPECT_EQ(got.final_norm, want.final_norm) << name;
    EXPECT_EQ(got.max_positions, want.max_positions) << name;
    EXPECT_EQ(got.eps, want.eps) << name;
    EXPECT_EQ(got.dropout, want.dropout) << name;
  }
  const VitConfig l16 = epalm_config(preset("epalm_ptl_vitl_opt6.7b_coco")).vision, want = VitConfig::l16();
  EXPECT_EQ(l16.dim, want.dim);
  EXPECT_EQ(l16.depth, want.depth);
  EXPECT_EQ(l16.heads, want.heads);
  EXPECT_EQ(l16.mlp_dim, want.mlp_dim);
  EXPECT_EQ(l16.patch, want.patch);
  EXPECT_EQ(l16.image_size, want.image_size);
  EXPECT_EQ(l16.eps, want.eps);
}

TEST(Factory, EveryChoiceArrives) {
  const EpalmConfig c = epalm_config(
      preset("epalm_vitb_opt125m_coco",
             {"model.epalm.connector=SHARED", "model.epalm.features=4", "model.epalm.prompt.kind=TABLE",
              "model.epalm.prompt.length=3", "model.epalm.adapter.kind=SCALED_PARALLEL",
              "model.epalm.adapter.location=ATTENTION", "model.epalm.adapter.factor=8",
              "model.epalm.adapter.layer_norm=true", "model.epalm.padding=CLEAN", "quirks.vis_row=CAUSAL",
              "quirks.frozen_dropout=true", "loss.label_smoothing=0.25", "loss.kind=TOKEN_MEAN", "loss.scale=0.5"}));
  EXPECT_TRUE(c.shared_connector);
  EXPECT_EQ(c.features, 4);
  EXPECT_EQ(c.start, 5);
  EXPECT_EQ(c.end, 11);
  EXPECT_EQ(c.prompt, EpalmConfig::Prompt::kTable);
  EXPECT_EQ(c.prompt_length, 3);
  ASSERT_TRUE(c.adaptor.has_value());
  EXPECT_EQ(c.adaptor->kind, AdaptorKind::kScaledParallel);
  EXPECT_EQ(c.adaptor->factor, 8);
  EXPECT_TRUE(c.adaptor->layer_norm);
  EXPECT_EQ(c.adaptor->location, AdaptorLocation::kAttention);
  EXPECT_EQ(c.padding, EpalmConfig::Padding::kClean);
  EXPECT_EQ(c.vis_row, EpalmConfig::VisRow::kCausal);
  EXPECT_TRUE(c.frozen_dropout);
  EXPECT_EQ(c.label_smoothing, 0.25f);
  const LossWeighting weighting =
      loss_weighting(preset("epalm_vitb_opt125m_coco", {"loss.kind=TOKEN_MEAN", "loss.scale=0.5"}).loss());
  EXPECT_EQ(weighting.kind, LossWeighting::Kind::kTokenMean);
  EXPECT_EQ(weighting.scale, 0.5);
  const EpalmConfig published = epalm_config(preset("epalm_vitb_opt125m_coco"));
  EXPECT_EQ(published.vis_row, EpalmConfig::VisRow::kPublished);
  EXPECT_EQ(published.padding, EpalmConfig::Padding::kPublished);
  EXPECT_EQ(published.prompt, EpalmConfig::Prompt::kMlp);
  EXPECT_FALSE(published.adaptor.has_value());
}

TEST(Factory, RulesOfTheConfigurationComeFirst) {
  config::Config config = preset("epalm_vitb_opt125m_coco");
  config::FreezeRule& rule = *config.add_freeze();
  rule.set_pattern("connector.0.*");
  rule.set_trainable(false);
  EXPECT_EQ(trainable_and_total(config).first, 4'732'416 - (768 * 768 + 768));
}

TEST(Factory, AdaptorsOfALanguageModelArrive) {
  const std::string at = "model.language_model.adapter.";
  const LanguageModelConfig c = language_model_config(preset(
      "adaptors_opt125m", {at + "kind=PARALLEL", at + "location=ATTENTION", at + "factor=6", at + "layer_norm=true"}));
  ASSERT_TRUE(c.adaptor.has_value());
  EXPECT_EQ(c.adaptor->kind, AdaptorKind::kParallel);
  EXPECT_EQ(c.adaptor->location, AdaptorLocation::kAttention);
  EXPECT_EQ(c.adaptor->factor, 6);
  EXPECT_TRUE(c.adaptor->layer_norm);
  EXPECT_FALSE(language_model_config(preset("adaptors_opt125m", {at + "kind=NONE"})).adaptor.has_value());
  EXPECT_EQ(trainable_and_total(preset("adaptors_opt125m")),
            std::pair(int64_t{12 * (2 * 768 * 192 + 192 + 768)}, int64_t{125'239'296 + 3'550'464}));
}

TEST(Factory, ChoicesOfTheProjectorArrive) {
  const ProjectorConfig c = projector_config(
      preset("projector_vitl_opt1.3b_coco", {"model.projector.kind=MLP", "loss.label_smoothing=0.25"}));
  EXPECT_EQ(c.kind, ProjectorConfig::Kind::kMlp);
  EXPECT_EQ(c.vision.depth, 24);
  EXPECT_EQ(c.text.hidden, 2048);
  EXPECT_EQ(c.label_smoothing, 0.25f);
  EXPECT_EQ(projector_config(preset("projector_vitl_opt1.3b_coco")).kind, ProjectorConfig::Kind::kLinear);
  EXPECT_EQ(trainable_and_total(preset("projector_vitl_opt1.3b_coco")),
            std::pair(int64_t{2'099'200}, int64_t{303'301'632 + 1'315'758'080 + 2'099'200}));
}

TEST(Factory, RefusesAnotherModel) {
  EXPECT_TRUE(throws_error([] { projector_config(config::Config()); }, ErrorKind::kConfig, {"expected projector"}));
  EXPECT_TRUE(throws_error([] { epalm_config(config::Config()); }, ErrorKind::kConfig, {"model: expected epalm"}));
}

}  // namespace
}  // namespace permafrost
