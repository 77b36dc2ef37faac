#include <filesystem>

#include "configs/load.h"
#include "tests/support/compare.h"

namespace permafrost::config {
namespace {

std::vector<std::string> presets() {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(PERMAFROST_CONFIGS))
    if (entry.path().extension() == ".textproto") found.push_back(entry.path().string());
  return found;
}

TEST(Presets, EveryOneLoadsAndItsResolvedTextLoadsToItself) {
  EXPECT_GE(presets().size(), 7u);
  for (const std::string& path : presets()) {
    SCOPED_TRACE(path);
    const Resolved resolved = load_config(path);
    EXPECT_EQ(resolve_config(resolved.text, path).text, resolved.text);
  }
}

Config preset(const std::string& name) {
  return load_config(std::string(PERMAFROST_CONFIGS) + "/" + name + ".textproto").config;
}

TEST(Presets, PublishedOnesHaveThePublishedWindowsAndRates) {
  const Config coco = preset("epalm_vitb_opt2.7b_coco");
  EXPECT_EQ(coco.model().epalm().start_layer(), 19);
  EXPECT_EQ(coco.model().epalm().end_layer(), 31);
  EXPECT_EQ(coco.optimizer().lr(), 2e-5);
  EXPECT_EQ(coco.schedule().epochs(), 8);
  EXPECT_TRUE(coco.quirks().prompt_lr_ignored());
  EXPECT_EQ(coco.loss().scale(), 0.1);
  EXPECT_EQ(coco.loss().kind(), Loss::SAMPLE_SUM);

  const Config vqa = preset("epalm_vitb_opt2.7b_vqa");
  EXPECT_EQ(vqa.train().global_batch(), 256);
  EXPECT_EQ(vqa.data().task(), Data::VQA);
  EXPECT_FALSE(vqa.quirks().prompt_lr_ignored());
  EXPECT_EQ(vqa.optimizer().groups(0).lr(), 1e-5);

  const Config large = preset("epalm_ptl_vitl_opt6.7b_coco");
  EXPECT_EQ(large.model().epalm().connector(), Epalm::SHARED);
  EXPECT_EQ(large.model().epalm().prompt().kind(), Prompt::TABLE);
  EXPECT_EQ(large.model().epalm().vision().depth(), 24);
  EXPECT_EQ(large.optimizer().lr(), 2e-4);

  const Config large_vqa = preset("epalm_ptl_vitl_opt6.7b_vqa");
  EXPECT_EQ(large_vqa.data().task(), Data::VQA);
  EXPECT_EQ(large_vqa.train().max_steps(), 35 * ((443'757 + 15) / 16));
  EXPECT_EQ(large_vqa.optimizer().groups(0).lr(), 1e-3);
  EXPECT_FALSE(large_vqa.quirks().prompt_lr_ignored());

  const Config linear = preset("epalm_lin_vitb_opt350m_coco");
  EXPECT_EQ(linear.model().epalm().connector(), Epalm::SHARED);
  EXPECT_EQ(linear.model().epalm().prompt().kind(), Prompt::NONE);
  EXPECT_EQ(linear.model().epalm().text().word_embed_proj_dim(), 512);

  const Config first = preset("epalm_vitb_opt125m_coco");
  EXPECT_EQ(first.train().max_steps(), 40);
  EXPECT_EQ(first.model().epalm().start_layer(), 5);
  EXPECT_EQ(first.model().epalm().end_layer(), 11);
}

TEST(Presets, PublishedOnesAreEvaluatedAsPublished) {
  for (const std::string& path : presets()) {
    const Config config = load_config(path).config;
    if (config.model().epalm().text().vocab() != 50272 || !config.quirks().frozen_dropout()) continue;
    SCOPED_TRACE(path);
    const Decoding& decoding = config.evaluation().decoding();
    EXPECT_EQ(decoding.beams(), 3);
    EXPECT_EQ(decoding.max_length(), 30);
    EXPECT_EQ(decoding.padding(), Decoding::PUBLISHED);
    EXPECT_EQ(decoding.normalisation(), Decoding::FULL);
    const Data& data = config.data();
    const Data& evaluated = config.evaluation().data();
    EXPECT_EQ(evaluated.format(), data.format());
    EXPECT_NE(evaluated.split() + evaluated.questions(), data.split() + data.questions()) << "not what is trained on";
  }
  EXPECT_EQ(preset("epalm_vitb_opt2.7b_coco").evaluation().data().split(), "test");
  EXPECT_EQ(preset("epalm_vitb_opt2.7b_vqa").evaluation().data().questions(), "vqa/karpathy_test.json");
}

}  // namespace
}  // namespace permafrost::config
