#include "configs/sizes.h"

#include <filesystem>
#include <fstream>

#include "tests/configs/small_config.h"
#include "tests/support/compare.h"

namespace permafrost::config {
namespace {
using testing::throws_error;

Resolved sized(const std::string& vision, const std::string& text, const std::vector<std::string>& overrides = {}) {
  return resolve_config("model { epalm { vision { " + vision + " } text { " + text +
                            " } start_layer: 1 end_layer: 2 features: 1 } } train { max_steps: 1 }",
                        "sized", overrides);
}

TEST(Sizes, OfModelsThatBecomeBackbones) {
  const Resolved vision = resolve_config(
      "model { vision_classifier { vision { size: VIT_L16 } labels: 2 classes: 3 } } data { task: CLASSES format: "
      "SHARDS shards: \"s\" } train { "
      "max_steps: 1 }",
      "v");
  EXPECT_EQ(vision.config.model().vision_classifier().vision().depth(), 24);
  const Resolved text =
      resolve_config("model { language_model { text { size: OPT_350M } } } train { max_steps: 1 }", "t");
  EXPECT_EQ(text.config.model().language_model().text().word_embed_proj_dim(), 512);
  const Resolved both = resolve_config(
      "model { projector { vision { size: VIT_L16 } text { size: OPT_1_3B } } } train { max_steps: 1 }", "t");
  EXPECT_EQ(both.config.model().projector().vision().dim(), 1024);
  EXPECT_EQ(both.config.model().projector().text().hidden(), 2048);
  EXPECT_FALSE(text.config.model().has_epalm());
}

TEST(Sizes, PublishedOnesAreFilledIn) {
  const Config large = sized("size: VIT_L16", "size: OPT_350M").config;
  EXPECT_EQ(large.model().epalm().vision().dim(), 1024);
  EXPECT_EQ(large.model().epalm().vision().mlp_dim(), 4096);
  EXPECT_EQ(large.model().epalm().vision().layer_norm_eps(), 1e-6);
  const Opt& opt = large.model().epalm().text();
  EXPECT_EQ(opt.layers(), 24);
  EXPECT_EQ(opt.word_embed_proj_dim(), 512);
  EXPECT_FALSE(opt.do_layer_norm_before());
  EXPECT_FALSE(opt.final_layer_norm());
  EXPECT_EQ(opt.max_positions(), 2048);

  struct Row {
    Opt::Size size;
    int layers, hidden, heads, ffn;
  };
  for (const Row& row : {Row{Opt::OPT_125M, 12, 768, 12, 3072}, Row{Opt::OPT_1_3B, 24, 2048, 32, 8192},
                         Row{Opt::OPT_2_7B, 32, 2560, 32, 10240}, Row{Opt::OPT_6_7B, 32, 4096, 32, 16384}}) {
    const Opt got = sized("size: VIT_B16", "size: " + Opt::Size_Name(row.size)).config.model().epalm().text();
    EXPECT_EQ(got.layers(), row.layers);
    EXPECT_EQ(got.hidden(), row.hidden);
    EXPECT_EQ(got.heads(), row.heads);
    EXPECT_EQ(got.ffn(), row.ffn);
    EXPECT_EQ(got.word_embed_proj_dim(), row.hidden);
    EXPECT_EQ(got.vocab(), 50272);
    EXPECT_TRUE(got.final_layer_norm());
  }
}

TEST(Sizes, NumbersThatDisagreeAreNamed) {
  EXPECT_EQ(sized("size: VIT_B16 depth: 12", "size: OPT_125M").config.model().epalm().vision().depth(), 12);
  EXPECT_TRUE(throws_error([] { sized("size: VIT_B16 depth: 6", "size: OPT_125M do_layer_norm_before: false"); },
                           ErrorKind::kConfig,
                           {"model.epalm.vision.depth: expected 12, as VIT_B16 has; got 6",
                            "model.epalm.text.do_layer_norm_before: expected 1, as OPT_125M has; got 0"}));
}

class HfConfig : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ =
        (std::filesystem::temp_directory_path() / ("permafrost_hf_" + std::to_string(::getpid()) + ".json")).string();
  }
  void TearDown() override { std::filesystem::remove(path_); }
  Resolved read(const std::string& json, const std::string& more = "") {
    std::ofstream(path_) << json;
    return sized("size: VIT_B16", "hf_config: \"" + path_ + "\" " + more);
  }
  std::string path_;
};

TEST_F(HfConfig, FillsTheFieldsAndIsNoLongerNeeded) {
  const Resolved resolved = read(R"({"model_type": "opt", "vocab_size": 70, "num_hidden_layers": 3, "hidden_size": 24,
    "num_attention_heads": 4, "ffn_dim": 40, "word_embed_proj_dim": 10, "do_layer_norm_before": false,
    "max_position_embeddings": 100})");
  const Opt& opt = resolved.config.model().epalm().text();
  EXPECT_EQ(opt.vocab(), 70);
  EXPECT_EQ(opt.layers(), 3);
  EXPECT_EQ(opt.hidden(), 24);
  EXPECT_EQ(opt.heads(), 4);
  EXPECT_EQ(opt.ffn(), 40);
  EXPECT_EQ(opt.word_embed_proj_dim(), 10);
  EXPECT_EQ(opt.max_positions(), 100);
  EXPECT_FALSE(opt.do_layer_norm_before());
  EXPECT_FALSE(opt.final_layer_norm());
  EXPECT_FALSE(opt.has_hf_config());
  std::filesystem::remove(path_);
  EXPECT_EQ(resolve_config(resolved.text, "again").text, resolved.text);
}

TEST_F(HfConfig, MayBeTheFolderOfAModel) {
  const std::string folder = path_ + "_folder";
  std::filesystem::create_directories(folder);
  EXPECT_TRUE(throws_error([&] { sized("size: VIT_B16", "hf_config: \"" + folder + "\""); }, ErrorKind::kConfig,
                           {folder + "/config.json', which cannot be opened"}));
  std::ofstream(folder + "/config.json") << R"({"vocab_size": 70, "num_hidden_layers": 3, "hidden_size": 24,
    "num_attention_heads": 4, "ffn_dim": 40})";
  EXPECT_EQ(sized("size: VIT_B16", "hf_config: \"" + folder + "\"").config.model().epalm().text().layers(), 3);
  std::filesystem::remove_all(folder);
}

TEST_F(HfConfig, AbsentFieldsMeanWhatTransformersMeans) {
  const std::string json = R"({"vocab_size": 70, "num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 4,
    "ffn_dim": 40)";
  const Opt opt = read(json + "}").config.model().epalm().text();
  EXPECT_EQ(opt.word_embed_proj_dim(), 24);
  EXPECT_TRUE(opt.do_layer_norm_before());
  EXPECT_TRUE(opt.final_layer_norm());
  EXPECT_FALSE(read(json + R"(, "_remove_final_layer_norm": true})").config.model().epalm().text().final_layer_norm());
}

TEST_F(HfConfig, SaysWhatIsWrong) {
  EXPECT_TRUE(throws_error([&] { read(R"({"vocab_size": "many", "hidden_size": 24})"); }, ErrorKind::kConfig,
                           {"model.epalm.text.hf_config: expected the whole number 'vocab_size'", "got \"many\"",
                            "'num_hidden_layers'", "got nothing"}));
  EXPECT_TRUE(throws_error([&] { read("[1]"); }, ErrorKind::kConfig, {"which is not a JSON object"}));
  EXPECT_TRUE(throws_error([&] { read("{"); }, ErrorKind::kConfig, {"which is not a JSON object"}));
  EXPECT_TRUE(throws_error([&] { read(R"({"model_type": "bert"})"); }, ErrorKind::kConfig,
                           {"expected 'model_type' = \"opt\"", "got \"bert\""}));
  EXPECT_TRUE(throws_error(
      [&] {
        read(R"({"activation_function": "gelu", "enable_bias": false, "tie_word_embeddings": false,
                     "layer_norm_elementwise_affine": false, "attention_dropout": 0.1, "num_attention_heads": 16.5, "do_layer_norm_before": "yes", "hidden_size": 1e10, "ffn_dim": 99999999999})");
      },
      ErrorKind::kConfig,
      {"expected 'activation_function' = \"relu\"", "got \"gelu\"", "'enable_bias' = true",
       "'tie_word_embeddings' = true", "'layer_norm_elementwise_affine' = true", "'attention_dropout' = 0.0", "got 0.1",
       "the whole number 'num_attention_heads'", "got 16.5", "true or false as 'do_layer_norm_before'",
       "the whole number 'hidden_size'", "the whole number 'ffn_dim'"}));
  EXPECT_TRUE(throws_error([&] { read("{}", "size: OPT_125M"); }, ErrorKind::kConfig,
                           {"model.epalm.text.hf_config: expected nothing besides a published size"}));
  EXPECT_TRUE(throws_error([&] { sized("size: VIT_B16", "hf_config: \"/nowhere/config.json\""); }, ErrorKind::kConfig,
                           {"'/nowhere/config.json', which cannot be opened"}));
}

}  // namespace
}  // namespace permafrost::config
