// The models that become backbones, through the program: probed against what timm and transformers computed, planned,
// and given random weights.
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
    write("vision", concat("model { vision_classifier { labels: ", vit.text("labels"),
                           " classes: ", vit.text("classes"), " vision { image_size: ", vit.text("img_size"),
                           " patch: ", vit.text("patch_size"), " dim: ", vit.text("dim"), " depth: ", vit.text("depth"),
                           " heads: ", vit.text("heads"), " mlp_dim: ", vit.text("mlp_dim"),
                           " } } } data { task: CLASSES format: SHARDS shards: 's' } weights { vision: '",
                           testing::golden_path("classifier_small_weights.safetensors"), "' }"));
    write("text", concat("model { language_model { text { vocab: ", opt.text("vocab_size"),
                         " layers: ", opt.text("num_hidden_layers"), " hidden: ", opt.text("hidden_size"),
                         " heads: ", opt.text("num_attention_heads"), " ffn: ", opt.text("ffn_dim"),
                         " word_embed_proj_dim: ", opt.text("word_embed_proj_dim"),
                         " do_layer_norm_before: true final_layer_norm: true max_positions: ",
                         opt.text("max_position_embeddings"), " } } } data { max_text_tokens: 16 } weights { text: '",
                         testing::golden_path("opt_pre_weights.safetensors"), "' }"));
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
  void expect_golden(const std::string& name, const std::string& file, const std::string& prefix) const {
    const Golden golden(file);
    std::string names = "loss,logits";
    const SafetensorsReader stored(testing::golden_path(file));
    for (const StoredTensor& tensor : stored.tensors())
      if (tensor.name.starts_with("grad:")) names += ",grad:" + prefix + tensor.name.substr(5);
    ASSERT_TRUE(
        ends(run("probe " + config(name) + " --batch " + batch() + " --grads --values " + names + " --out " + out()), 0,
             {"tensors"}));
    const SafetensorsReader got(out());
    ASSERT_GT(got.tensors().size(), 10u);
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
