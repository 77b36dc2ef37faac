// The models besides eP-ALM, through the program: probed against what timm and transformers computed, planned,
// exported, and given random weights.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/golden.h"

namespace permafrost {
namespace {

using testing::Golden;
using testing::OwnedTensor;

class Backbones : public ::testing::Test {
 protected:
  void SetUp() override {
    const Golden vit("classifier_small.safetensors"), opt("opt_pre.safetensors");
    write("vision",
          concat("model { vision_classifier { labels: ", vit.text("labels"), " classes: ", vit.text("classes"), " ",
                 vision_fields(vit), " } } data { task: CLASSES format: SHARDS shards: 's' } weights {",
                 weights_of("vision", "classifier_small_weights"), " }"));
    write("text", concat("model { language_model { ", text_fields(opt), " } } data { max_text_tokens: 16 } weights {",
                         weights_of("text", "opt_pre_weights"), " }"));
  }
  static std::string text_fields(const Golden& opt) {
    const std::string before = opt.text("do_layer_norm_before");
    return concat("text { vocab: ", opt.text("vocab_size"), " layers: ", opt.text("num_hidden_layers"),
                  " hidden: ", opt.text("hidden_size"), " heads: ", opt.text("num_attention_heads"),
                  " ffn: ", opt.text("ffn_dim"), " word_embed_proj_dim: ", opt.text("word_embed_proj_dim"),
                  " do_layer_norm_before: ", before, " final_layer_norm: ", before,
                  " max_positions: ", opt.text("max_position_embeddings"), " }");
  }
  static std::string vision_fields(const Golden& vit) {
    return concat("vision { image_size: ", vit.text("img_size"), " patch: ", vit.text("patch_size"),
                  " dim: ", vit.text("dim"), " depth: ", vit.text("depth"), " heads: ", vit.text("heads"),
                  " mlp_dim: ", vit.text("mlp_dim"), " }");
  }
  static std::string weights_of(const std::string& part, const std::string& golden) {
    return concat(" ", part, ": '", testing::golden_path(golden + ".safetensors"), "'");
  }
  void write_adapted() const {
    write("adapted", concat("model { language_model { ", text_fields(Golden("epalm_opt_pre_weights.safetensors")),
                            " adapter { kind: NORMAL } } } data { max_text_tokens: 16 } weights {",
                            weights_of("text", "epalm_opt_pre_weights"),
                            weights_of("adapter", "adapted_mlp_normal_adapter"), " }"));
  }
  void write_projector() const {
    write("projector",
          concat("model { projector { ", vision_fields(Golden("epalm_vit_weights.safetensors")), " ",
                 text_fields(Golden("epalm_opt_pre_weights.safetensors")),
                 " kind: MLP } } data { max_text_tokens: 16 } weights {", weights_of("vision", "epalm_vit_weights"),
                 weights_of("text", "epalm_opt_pre_weights"), weights_of("adapter", "projector_mlp_adapter"), " }"));
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(config(name)) << text
                                << " train { max_steps: 1 } precision { compute: FP32 } loss { kind: TOKEN_MEAN }";
  }
  std::string config(const std::string& name) const { return (folder_ / (name + ".textproto")).string(); }
  std::string batch() const { return (folder_ / "in.safetensors").string(); }
  std::string out() const { return (folder_ / "out.safetensors").string(); }
  void write_batch(const Golden& golden, const std::vector<std::string>& names) const {
    std::vector<TensorDeclaration> declarations;
    for (const std::string& name : names) declarations.push_back({name, golden.tensor(name).view().spec()});
    SafetensorsWriter writer(batch(), declarations);
    for (const std::string& name : names) writer.write_tensor(name, golden.tensor(name));
    writer.finish();
  }
  /// Loss, logits and all gradients, which the golden file calls without the prefix.
  void expect_golden(const std::string& name, const std::string& file, const std::string& prefix,
                     std::string names = "loss,logits") const {
    const Golden golden(file);
    const SafetensorsReader stored(testing::golden_path(file));
    for (const StoredTensor& tensor : stored.tensors())
      if (tensor.name.starts_with("grad:")) names += ",grad:" + prefix + tensor.name.substr(5);
    ASSERT_TRUE(
        ends(run("probe " + config(name) + " --batch " + batch() + " --grads --values " + names + " --out " + out()), 0,
             {"tensors"}));
    const SafetensorsReader got(out());
    ASSERT_GT(got.tensors().size(), 5u);
    for (const StoredTensor& tensor : got.tensors()) {
      OwnedTensor values(tensor.dtype.value(), tensor.shape);
      got.read_tensor(tensor.name, values);
      std::string in_golden = tensor.name;
      if (in_golden.starts_with("grad:")) in_golden.erase(5, prefix.size());
      // All of the gradients of key biases are sums that cancel; the others have a size to measure errors by.
      if (in_golden.ends_with("k_proj.bias")) continue;
      const std::vector<double> want = golden.values(in_golden);
      double largest = 0;
      for (double w : want) largest = std::max(largest, std::abs(w));
      EXPECT_TRUE(testing::all_close(values, want, {1e-4 * largest, 0})) << tensor.name;
    }
  }
  ScratchFolder folder_;
};

TEST_F(Backbones, AreProbedLikeOtherModels) {
  write_batch(Golden("classifier_small.safetensors"), {"images", "labels"});
  expect_golden("vision", "classifier_small.safetensors", "vision.");
  EXPECT_TRUE(ends(run("probe " + config("vision") + " --list --grads"), 0,
                   {"logits (4, 3, 5) f32", "grad:vision.head.weight (15, 9) f32"}));
  write_batch(Golden("opt_pre.safetensors"), {"input_ids", "attention_mask", "labels"});
  expect_golden("text", "opt_pre.safetensors", "text.");
  const Outcome list = run("probe " + config("text") + " --list");
  EXPECT_TRUE(ends(list, 0, {"logits (4, 16, 61) f32"}));
  EXPECT_EQ(list.output.find("images"), std::string::npos) << list.output;
}

TEST_F(Backbones, AdaptedLanguageModelsAndProjectorsAreProbedToo) {
  write_adapted();
  write_batch(Golden("adapted_mlp_normal.safetensors"), {"input_ids", "attention_mask", "labels"});
  expect_golden("adapted", "adapted_mlp_normal.safetensors", "");
  write_projector();
  write_batch(Golden("projector_mlp.safetensors"), {"images", "input_ids", "attention_mask", "labels"});
  expect_golden("projector", "projector_mlp.safetensors", "", "loss,logits,projector.out,text.embed.out");
}

TEST_F(Backbones, AdaptorsOfALanguageModelAreExportedAsEpalmHasThem) {
  const std::string from = testing::golden_path("adapted_mlp_normal_adapter.safetensors"),
                    to = (folder_ / "adaptors.pth").string(), again = (folder_ / "again.safetensors").string();
  EXPECT_TRUE(ends(run("weights export --from " + from + " --to " + to + " --as epalm"), 0, {"32 tensors"}));
  EXPECT_TRUE(ends(run("weights import --from " + to + " --to " + again + " --as epalm"), 0, {"32 tensors"}));
  const SafetensorsReader one(from), other(again);
  ASSERT_EQ(other.tensors().size(), one.tensors().size());
  for (const StoredTensor& tensor : one.tensors()) EXPECT_EQ(other.read_all(tensor.name), one.read_all(tensor.name));
  write_adapted();
  EXPECT_TRUE(ends(run("probe " + config("adapted") + " --list --set weights.adapter=" + to), 0, {"logits"}));
}

TEST_F(Backbones, ModelsThatGenerateNothingSaySo) {
  write_projector();
  EXPECT_TRUE(ends(run("generate " + config("projector") + " --image none.jpg"), 2,
                   {"model: epalm expected, which generates texts from images; got projector"}));
  EXPECT_TRUE(ends(run("generate " + config("text") + " --image none.jpg"), 2, {"got language_model"}));
}

TEST_F(Backbones, BatchesThatDoNotFitAreRefused) {
  write_batch(Golden("opt_pre.safetensors"), {"input_ids", "attention_mask", "labels"});
  const std::string end = " --batch " + batch() + " --values loss --out " + out();
  EXPECT_TRUE(ends(run("probe " + config("vision") + end), 3, {"labels must be [B,3]", "got (2, 11)"}));
  write_batch(Golden("classifier_small.safetensors"), {"images", "labels"});
  EXPECT_TRUE(ends(run("probe " + config("text") + end), 3, {"'input_ids'"}));
  EXPECT_TRUE(
      ends(run("probe " + config("vision") + end + " --set model.vision_classifier.classes=3 --set weights.vision="), 3,
           {"labels must be 0 to 2, or -100"}));
}

TEST_F(Backbones, AClassifierNeedsItsHeadAndNoOther) {
  write_batch(Golden("classifier_small.safetensors"), {"images", "labels"});
  const std::string end = " --batch " + batch() + " --values loss --out " + out();
  EXPECT_TRUE(ends(run("probe " + config("vision") + end +
                       " --set model.vision_classifier.labels=3 --set "
                       "model.vision_classifier.classes=7"),
                   3, {"misshapen: 'head.weight' must be (21, 9); got (15, 9)", "'head.bias'"}));
}

TEST_F(Backbones, ArePlannedAndHaveRandomWeights) {
  write_adapted();
  EXPECT_TRUE(ends(run("plan " + config("adapted") + " --ranks 2"), 0, {"text.layers.7.adapter"}));
  write_projector();
  EXPECT_TRUE(ends(run("plan " + config("projector") + " --ranks 2"), 0, {"projector", "text.layers.7"}));
  EXPECT_TRUE(ends(run("weights random " + config("projector") + " --out " + (folder_ / "both").string()), 0,
                   {"vision: ", "text: "}));
  EXPECT_TRUE(ends(run("plan " + config("vision") + " --ranks 2"), 0,
                   {"vision.head", "frozen weights: none", "trainable (100 %)"}));
  EXPECT_TRUE(ends(run("plan " + config("text")), 0, {"text.layers.2", "trainable (100 %)"}));
  EXPECT_TRUE(ends(run("weights random " + config("text") + " --out " + (folder_ / "random").string()), 0, {"text: "}));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "random" / "vision"));
  EXPECT_TRUE(ends(run("weights random " + config("vision") + " --out " + (folder_ / "random").string()), 0,
                   {"vision: 20 tensors"}));
}

}  // namespace
}  // namespace permafrost
