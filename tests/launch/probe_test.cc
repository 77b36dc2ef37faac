// `permafrost probe` against the goldens: what another implementation computed, met through the program alone.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "core/weights/torch_writer.h"
#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/golden.h"
#include "tests/weights/zip_bytes.h"

namespace permafrost {
namespace {

using testing::Golden;
using testing::OwnedTensor;

std::string flag(bool value) { return value ? "true" : "false"; }

/// The configuration of a golden variant; `mode` is one of those of tests/goldens/README.md.
std::string config_of(const Golden& golden, const std::string& mode) {
  const Golden vision(golden.text("vision") + "_weights.safetensors"),
      text(golden.text("text") + "_weights.safetensors");
  std::string c =
      concat("model { epalm { vision { image_size: ", vision.text("img_size"), " patch: ", vision.text("patch_size"),
             " dim: ", vision.text("dim"), " depth: ", vision.text("depth"), " heads: ", vision.text("heads"),
             " mlp_dim: ", vision.text("mlp_dim"), " }\n");
  const bool before = text.text("do_layer_norm_before") == "true";
  c += concat("text { vocab: ", text.text("vocab_size"), " layers: ", text.text("num_hidden_layers"),
              " hidden: ", text.text("hidden_size"), " heads: ", text.text("num_attention_heads"),
              " ffn: ", text.text("ffn_dim"), " word_embed_proj_dim: ", text.text("word_embed_proj_dim"),
              " do_layer_norm_before: ", flag(before), " final_layer_norm: ", flag(before),
              " max_positions: ", text.text("max_position_embeddings"), " }\n");
  c += concat("connector: ", golden.text("shared_connector") == "true" ? "SHARED" : "PER_LEVEL",
              " features: ", golden.text("features"), " start_layer: ", golden.text("start"),
              " end_layer: ", golden.text("end"), "\n");
  const bool prompt = golden.text("prompt_len") != "0";
  c += !prompt ? "prompt { kind: NONE }\n"
               : concat("prompt { kind: ", golden.text("prompt_mlp") == "true" ? "MLP" : "TABLE",
                        " length: ", golden.text("prompt_len"), " }\n");
  c += concat("padding: ", mode == "open_clean" ? "CLEAN" : "PUBLISHED", " } }\n");
  c += "train { max_steps: 1 } data { max_text_tokens: 16 } precision { compute: FP32 }\n";
  c += concat("quirks { vis_row: ", mode == "causal" ? "CAUSAL" : "PUBLISHED", " }\n");
  return c + concat("weights { vision: '", testing::golden_path(golden.text("vision") + "_weights.safetensors"),
                    "' text: '", testing::golden_path(golden.text("text") + "_weights.safetensors"), "' }\n");
}

struct BatchTensor {
  std::string name;
  OwnedTensor data;
};

void write_batch(const std::filesystem::path& path, const std::vector<BatchTensor>& tensors) {
  std::vector<TensorDeclaration> declarations;
  for (const BatchTensor& t : tensors) declarations.push_back({t.name, t.data.view().spec()});
  SafetensorsWriter writer(path.string(), declarations);
  for (const BatchTensor& t : tensors) writer.write_tensor(t.name, t.data);
  writer.finish();
}

std::vector<BatchTensor> batch_of(const Golden& golden, const std::string& labels = "labels") {
  return {{"images", golden.tensor("images")},
          {"input_ids", golden.tensor("input_ids")},
          {"attention_mask", golden.tensor("attention_mask")},
          {"labels", golden.tensor(labels)}};
}

/// A probe of one golden variant in a folder of its own.
class ProbeRun {
 public:
  explicit ProbeRun(const std::string& variant, const std::string& mode = "open_published")
      : variant_(variant), golden_("epalm_" + variant + ".safetensors") {
    std::ofstream(folder_ / "config.textproto") << config_of(golden_, mode);
    write_batch(batch(), batch_of(golden_));
  }
  std::filesystem::path batch() const { return folder_ / "in.safetensors"; }
  std::filesystem::path out() const { return folder_ / "out.safetensors"; }
  const Golden& golden() const { return golden_; }
  Outcome probe(const std::string& more) const {
    return run("probe " + (folder_ / "config.textproto").string() + " --set weights.adapter=" +
               testing::golden_path("epalm_" + variant_ + "_adapter.safetensors") + " " + more);
  }
  Outcome values(const std::string& names, const std::string& more = "--grads") const {
    return probe("--batch " + batch().string() + " --out " + out().string() + " --values " + names + " " + more);
  }

 private:
  std::string variant_;
  Golden golden_;
  ScratchFolder folder_;
};

/// Within 1e-4 of the largest value: fp32 against fp64.
::testing::AssertionResult close(const SafetensorsReader& got, const std::string& name, const Golden& golden,
                                 const std::string& stored) {
  const StoredTensor& tensor = got.at(name);
  OwnedTensor values(tensor.dtype.value(), tensor.shape);
  got.read_tensor(name, values);
  const std::vector<double> want = golden.values(stored);
  double largest = 0;
  for (double w : want) largest = std::max(largest, std::abs(w));
  if (!(tensor.shape.elements() == golden.shape(stored).elements()))
    return ::testing::AssertionFailure() << name << " is " << tensor.shape << ", " << stored << " is "
                                         << golden.shape(stored);
  return testing::all_close(values, want, {1e-4 * largest, 0}) << " " << name << " against " << stored;
}

/// Names in a golden file that begin with `prefix`, without it.
std::vector<std::string> names_below(const std::string& file, const std::string& prefix) {
  std::vector<std::string> names;
  const SafetensorsReader reader(testing::golden_path(file));
  for (const StoredTensor& tensor : reader.tensors())
    if (tensor.name.starts_with(prefix)) names.push_back(tensor.name.substr(prefix.size()));
  return names;
}

/// Every value and gradient that the golden file has for this mode and loss.
void compare(const ProbeRun& probe, const std::string& variant, const std::string& mode, const std::string& loss,
             const std::string& more) {
  std::vector<std::pair<std::string, std::string>> pairs;  // asked for, stored as
  const std::string file = "epalm_" + variant + ".safetensors", at = mode + "/" + loss + "/";
  for (const std::string& name : names_below(file, at)) pairs.emplace_back(name, at + name);
  for (const std::string& name : names_below(file, mode + "/text."))
    pairs.emplace_back("text." + name, mode + "/text." + name);
  pairs.emplace_back("logits", mode + "/logits");
  for (const char* plain : {"features.0", "connected.0", "prompt.out", "text.embed.out"})
    if (probe.golden().has(plain)) pairs.emplace_back(plain, plain);
  std::string names;
  for (const auto& [name, stored] : pairs) names += (names.empty() ? "" : ",") + name;
  ASSERT_TRUE(ends(probe.values(names, "--grads " + more), 0, {"vision: ", "text: ", "adapter: "}));
  const SafetensorsReader got(probe.out().string());
  EXPECT_EQ(got.tensors().size(), pairs.size());
  EXPECT_EQ(got.at("loss").dtype, DType::kF64);
  for (const auto& [name, stored] : pairs) EXPECT_TRUE(close(got, name, probe.golden(), stored));
}

struct Case {
  std::string variant, mode;
};
class ProbeGolden : public ::testing::TestWithParam<Case> {};

TEST_P(ProbeGolden, MeetsValuesLossAndGradients) {
  const auto& [variant, mode] = GetParam();
  const ProbeRun probe(variant, mode);
  compare(probe, variant, mode, "sample_sum.all", "");
}

INSTANTIATE_TEST_SUITE_P(Variants, ProbeGolden,
                         ::testing::Values(Case{"main", "open_published"}, Case{"main", "open_clean"},
                                           Case{"main", "causal"}, Case{"post", "open_published"},
                                           Case{"post", "causal"}, Case{"lin_shared", "open_published"},
                                           Case{"lin", "open_published"}, Case{"pt", "open_published"}),
                         [](const auto& info) { return info.param.variant + "_" + info.param.mode; });

TEST(Probe, MeetsTheOtherLosses) {
  const ProbeRun probe("main");
  compare(probe, "main", "open_published", "token_mean.all", "--set loss.kind=TOKEN_MEAN");
  write_batch(probe.batch(), batch_of(probe.golden(), "labels_answer"));
  compare(probe, "main", "open_published", "sample_sum.answer", "");
}

TEST(Probe, ListsNamesWithShapes) {
  const ProbeRun probe("main");
  const Outcome given = probe.probe("--grads --list --batch " + probe.batch().string());
  EXPECT_TRUE(ends(
      given, 0,
      {"\nlogits (3, 14, 67) f32\n", "\nloss (1) f64\n", "\ntext.layers.0.out (3, 13, 16) f32\n",
       "\ntext.layers.7.out (3, 14, 16) f32\n", "\nfeatures.0 (3, 12) f32\n", "\nvision.blocks.0.out (3, 5, 12) f32\n",
       "\ngrad:text.layers.7.out (3, 14, 16) f32\n", "\ngrad:connector.0.weight (16, 12) f32\n"}));
  EXPECT_EQ(given.output.find("grad:vision."), std::string::npos) << "nothing upstream of the connector trains";
  const Outcome sizes = probe.probe("--list --set train.micro_batch=2");
  EXPECT_TRUE(ends(sizes, 0, {"\nlogits (2, 20, 67) f32\n"}));
  EXPECT_EQ(sizes.output.find("grad:"), std::string::npos) << "without --grads";
  // Every name of the list can be asked for.
  std::string names;
  std::istringstream lines(given.output);
  for (std::string line, name; std::getline(lines, line);) {
    std::istringstream(line) >> name;
    names += (names.empty() ? "" : ",") + name;
  }
  ASSERT_TRUE(ends(probe.values(names), 0, {}));
  EXPECT_EQ(SafetensorsReader(probe.out().string()).tensors().size(),
            static_cast<size_t>(std::ranges::count(names, ',')) + 1);
}

/// The tensors of a golden file as torch.save writes them.
void write_torch(const std::string& golden, const std::string& path) {
  const SafetensorsReader reader(testing::golden_path(golden));
  std::vector<TensorDeclaration> declarations;
  for (const StoredTensor& tensor : reader.tensors())
    declarations.push_back({tensor.name, {tensor.shape, *tensor.dtype}});
  TorchWriter writer(path, declarations, Json::object());
  for (const StoredTensor& tensor : reader.tensors()) writer.write(reader.read_all(tensor.name));
  writer.finish();
}

/// The same as numpy.savez_compressed does.
void write_npz(const std::string& golden, const std::string& path) {
  const SafetensorsReader reader(testing::golden_path(golden));
  std::vector<testing::ZipEntry> entries;
  for (const StoredTensor& tensor : reader.tensors()) {
    std::string shape;
    for (const int64_t extent : tensor.shape.dims()) shape += std::to_string(extent) + ",";
    const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }";
    std::string member = "\x93NUMPY\x01";
    testing::put(member, 0, 1), testing::put(member, header.size(), 2);
    const std::vector<std::byte> data = reader.read_all(tensor.name);
    member += header + std::string(reinterpret_cast<const char*>(data.data()), data.size());
    entries.push_back({.name = tensor.name + ".npy", .data = member, .deflate = true});
  }
  std::ofstream(path, std::ios::binary) << testing::zip_bytes(entries);
}

TEST(Probe, TakesWeightsAsOtherProgramsWriteThem) {
  const ProbeRun probe("main");
  const ScratchFolder folder;
  std::filesystem::create_directories(folder / "hf");
  write_torch(probe.golden().text("text") + "_weights.safetensors", (folder / "hf/pytorch_model.bin").string());
  write_npz(probe.golden().text("vision") + "_weights.safetensors", (folder / "vision.npz").string());
  write_torch("epalm_main_adapter.safetensors", (folder / "checkpoint_best.pth").string());
  ASSERT_TRUE(
      ends(probe.values("logits,loss", concat("--set weights.text=", (folder / "hf").string(),
                                              " --set weights.vision=", (folder / "vision.npz").string(),
                                              " --set weights.adapter=", (folder / "checkpoint_best.pth").string())),
           0, {"/hf: ", "vision.npz: ", "checkpoint_best.pth: "}));
  const std::vector<std::byte> logits = SafetensorsReader(probe.out().string()).read_all("logits");
  ASSERT_TRUE(ends(probe.values("logits,loss"), 0, {}));
  EXPECT_EQ(logits, SafetensorsReader(probe.out().string()).read_all("logits")) << "the same bits as from safetensors";
}

TEST(Probe, RunsWithEverythingFrozen) {
  const ProbeRun probe("main");
  const std::string frozen = "--set 'freeze+={pattern: \"*\" trainable: false}'";
  ASSERT_TRUE(ends(probe.values("logits", frozen), 0, {}));
  EXPECT_TRUE(close(SafetensorsReader(probe.out().string()), "logits", probe.golden(), "open_published/logits"));
  EXPECT_TRUE(ends(probe.values("logits", "--grads " + frozen), 2, {"at least one parameter must be trainable; got "}));
}

TEST(Probe, RefusesNamesAndMissingOptions) {
  const ProbeRun probe("main");
  EXPECT_TRUE(ends(probe.values("logits,text.layer.0.out,grad:nothing,loss"), 2,
                   {"must name values of this model", "got text.layer.0.out, grad:nothing\n"}));
  EXPECT_TRUE(ends(probe.values("grad:connector.0.weight", ""), 2,
                   {"gradients need --grads", "got grad:connector.0.weight\n"}));
  EXPECT_TRUE(ends(probe.values("grad:vision.blocks.0.out"), 2, {"got grad:vision.blocks.0.out\n"}));
  EXPECT_TRUE(ends(probe.values("loss,loss"), 2, {"each value once; got loss twice"}));
  const std::string batch = "--batch " + probe.batch().string();
  EXPECT_TRUE(ends(probe.probe(batch + " --out x.safetensors"), 2, {"--values", "required"}));
  EXPECT_TRUE(ends(probe.probe(batch + " --values loss"), 2, {"--out", "required"}));
  EXPECT_TRUE(ends(probe.probe("--values loss --out x.safetensors"), 2, {"--batch", "required"}));
  EXPECT_TRUE(
      ends(probe.probe(batch + " --values loss --out /proc/none/x.safetensors"), 4, {"/proc/none/x.safetensors"}));
}

TEST(Probe, RefusesBatchesThatAreNotWhatItSays) {
  const ProbeRun probe("main");
  const auto refused = [&](const std::vector<BatchTensor>& tensors, const std::vector<std::string>& parts) {
    write_batch(probe.batch(), tensors);
    EXPECT_TRUE(ends(probe.values("loss"), 3, parts));
  };
  const auto changed = [&](size_t which, const OwnedTensor& to) {
    std::vector<BatchTensor> tensors = batch_of(probe.golden());
    tensors[which].data = to;
    return tensors;
  };
  const auto with_value = [&](size_t which, int64_t at, int64_t value) {
    std::vector<BatchTensor> tensors = batch_of(probe.golden());
    tensors[which].data.view().data<int64_t>()[at] = value;
    return tensors;
  };
  constexpr size_t kImages = 0, kIds = 1, kMask = 2, kLabels = 3;
  for (const char* name : {"images", "input_ids", "attention_mask", "labels"}) {
    std::vector<BatchTensor> tensors = batch_of(probe.golden());
    std::erase_if(tensors, [&](const BatchTensor& t) { return t.name == name; });
    refused(tensors, {probe.batch().string() + ": ", concat("'", name, "'; got")});
  }
  const Shape shape = probe.golden().shape("input_ids");
  const std::vector<double> ids = probe.golden().values("input_ids");
  refused(changed(kIds, testing::make_tensor(DType::kI32, shape, ids)),
          {"input_ids must be (3, 10) I64; got (3, 10) I32"});
  refused(changed(kIds, testing::make_tensor(DType::kI64, {30}, ids)), {"input_ids must be [B,T]", "got (30)"});
  refused(changed(kIds, testing::make_tensor(DType::kI64, {3, 0}, {})), {"input_ids must be [B,T]", "got (3, 0)"});
  refused(changed(kMask, testing::make_tensor(DType::kF32, shape, ids)),
          {"attention_mask must be (3, 10) I64; got (3, 10) F32"});
  refused(changed(kLabels, testing::make_tensor(DType::kI64, {5, 6}, ids)),
          {"labels must be (3, 10) I64; got (5, 6) I64"});
  refused(changed(kImages, testing::random_tensor(DType::kF32, {3, 3, 8, 8}, 1)),
          {"expected 'images' as (3, 3, 16, 16) f32; got (3, 3, 8, 8) F32"});
  refused(changed(kImages, testing::random_tensor(DType::kF16, {3, 3, 16, 16}, 1)),
          {"expected 'images' as (3, 3, 16, 16) f32; got (3, 3, 16, 16) F16"});
  refused(with_value(kMask, 0, 0), {"ones followed by zeros (padding on the right)"});
  refused(with_value(kMask, 0, 2), {"ones followed by zeros", "got 2 at (0, 0)"});
  refused(with_value(kIds, 12, 67), {"input_ids must be 0 to 66; got 67 at (1, 2)"});
  refused(with_value(kIds, 0, -1), {"input_ids must be 0 to 66; got -1 at (0, 0)"});
  refused(with_value(kLabels, 11, int64_t{1} << 40), {"labels must be 0 to 66, or -100; got 1099511627776 at (1, 1)"});
  std::ofstream(probe.batch()) << "no tensors";
  EXPECT_TRUE(
      ends(probe.values("loss"), 3,
           {probe.batch().string() + ": header length must be 2 to 100000000 bytes and within the file; got "}));
  std::filesystem::remove(probe.batch());
  EXPECT_TRUE(ends(probe.values("loss"), 3,
                   {probe.batch().string() + ": expected a safetensors file; cannot open: No such file or directory"}));
}

TEST(Probe, RefusesLabelsBehindTheText) {
  const ProbeRun probe("main");
  std::vector<BatchTensor> tensors = batch_of(probe.golden());
  const auto* mask = tensors[2].data.view().data<int64_t>();
  const auto pad = std::find(mask, mask + 30, 0) - mask;
  ASSERT_LT(pad, 30) << "the golden has padding";
  tensors[3].data.view().data<int64_t>()[pad] = 5;
  write_batch(probe.batch(), tensors);
  EXPECT_TRUE(ends(probe.values("loss"), 3, {"labels must be -100 where attention_mask is 0; got 5"}));
}

}  // namespace
}  // namespace permafrost
