// weights import and weights export, as users meet them.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/base/json.h"
#include "core/weights/safetensors.h"
#include "core/weights/source.h"
#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"
#include "tests/weights/pickle_writer.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

std::string weight_file(const std::string& name) { return testing::golden_path("weight_files/" + name); }

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Every tensor that the goldens have under `prefix`, less those that the kind drops, is in the file with its bits.
void expect_golden(const std::string& path, const std::string& prefix, const std::vector<std::string>& dropped = {}) {
  const WeightSource source = WeightSource::open(path);
  const SafetensorsReader golden(weight_file("expected.safetensors"));
  size_t count = 0;
  for (const StoredTensor& tensor : golden.tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    const std::string name = tensor.name.substr(prefix.size());
    if (std::ranges::find(dropped, name) != dropped.end()) continue;
    ++count;
    const SourceTensor* found = source.find(name);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_EQ(found->stored.dtype_name, tensor.dtype_name);
    std::vector<std::byte> bytes(static_cast<size_t>(found->stored.bytes));
    source.read(*found, 0, bytes);
    EXPECT_EQ(bytes, golden.read_all(tensor.name)) << name;
  }
  EXPECT_EQ(source.tensors().size(), count);
}

class WeightsCommands : public ::testing::Test {
 protected:
  std::string out(const std::string& name) const { return (folder_ / name).string(); }
  ScratchFolder folder_;
};

TEST_F(WeightsCommands, ImportWritesOneFileAndReports) {
  EXPECT_TRUE(
      ends(run("weights import --from " + weight_file("opt.bin") + " --to " + out("opt.safetensors") + " --as opt"), 0,
           {"37 tensors, of kind opt: 0 renamed, 1 dropped, 0 missing",
            "dropped: lm_head.weight (repeats the embedding)", "wrote " + out("opt.safetensors") + ": 36 tensors"}));
  expect_golden(out("opt.safetensors"), "opt.bin/", {"lm_head.weight"});
  EXPECT_TRUE(ends(run("weights import --from " + weight_file("jax_vit.npz") + " --to " + out("vit.safetensors") +
                       " --as timm_vit_npz"),
                   0, {"renamed: embedding/kernel -> patch_embed.proj.weight", "dropped: pre_logits/kernel"}));
  expect_golden(out("vit.safetensors"), "timm/");
  EXPECT_TRUE(
      ends(run("weights import --from " + weight_file("sharded") + " --to " + out("raw.safetensors") + " --as raw"), 0,
           {"9 tensors, of kind raw"}));
  expect_golden(out("raw.safetensors"), "dtypes.pth/");
}

TEST_F(WeightsCommands, ImportConvertsDtypes) {
  EXPECT_TRUE(ends(run("weights import --from " + weight_file("dtypes.pth") + " --to " + out("w.safetensors") +
                       " --as raw --dtype bf16"),
                   0, {"9 tensors"}));
  const SafetensorsReader reader(out("w.safetensors"));
  for (const char* name : {"f32", "f16", "f64", "bf16", "scalar"})
    EXPECT_EQ(reader.at(name).dtype_name, "BF16") << name;
  EXPECT_EQ(reader.at("i64").dtype_name, "I64");
  EXPECT_EQ(reader.read_all("bf16"), open_tensor_file(weight_file("dtypes.pth"))->read_all("bf16"));
}

TEST_F(WeightsCommands, EpalmCheckpointsGoBothWaysBitForBit) {
  const std::string adapter = out("adapter.safetensors"), checkpoint = out("checkpoint_best.pth");
  EXPECT_TRUE(ends(run("weights import --from " + weight_file("checkpoint.pth") + " --to " + adapter + " --as epalm"),
                   0, {"11 tensors", "(repeats model_text.model."}));
  EXPECT_TRUE(ends(run("weights export --from " + adapter + " --to " + checkpoint + " --as epalm"), 0,
                   {"wrote " + checkpoint + ": 10 tensors"}));
  expect_golden(checkpoint, "checkpoint.pth/", {"transformer.model.decoder.layers.0.fc2.1.adapter.0.weight"});
  const auto file = open_tensor_file(checkpoint);
  EXPECT_EQ(file->metadata().at("epoch"), "7");
  EXPECT_EQ(file->metadata().at("best_valid"), "0.5325");
  EXPECT_EQ(file->metadata().at("config"),
            R"({"injected_hidden_states":6,"lr":2e-05,"text_model":"facebook/opt-2.7b","use_vis_prefix":true})");
  EXPECT_TRUE(
      ends(run("weights import --from " + checkpoint + " --to " + out("again.safetensors") + " --as epalm"), 0, {}));
  EXPECT_EQ(bytes_of(out("again.safetensors")), bytes_of(adapter));
}

/// A checkpoint folder of a run with a text model and a vision model of ours.
class WeightsExport : public WeightsCommands {
 protected:
  void SetUp() override {
    fs::create_directories(checkpoint_);
    std::vector<TensorDeclaration> declarations;
    const SafetensorsReader golden(weight_file("expected.safetensors"));
    const auto is_ours = [](const std::string& name) {
      return (name.starts_with("opt.bin/") && name != "opt.bin/lm_head.weight") || name.starts_with("timm/");
    };
    for (const StoredTensor& tensor : golden.tensors())
      if (is_ours(tensor.name))
        declarations.push_back(
            {(tensor.name.starts_with("timm/") ? "vision." : "text.") + tensor.name.substr(tensor.name.find('/') + 1),
             {tensor.shape, *tensor.dtype}});
    SafetensorsWriter writer((checkpoint_ / "adapter.safetensors").string(), declarations);
    for (const StoredTensor& tensor : golden.tensors())
      if (is_ours(tensor.name)) writer.write(golden.read_all(tensor.name));
    writer.finish();
  }
  std::string from() const { return checkpoint_.string(); }

  fs::path run_ = folder_ / "run", checkpoint_ = run_ / "checkpoints/step-00000010";
};

TEST_F(WeightsExport, OptBecomesAModelFolderOfTransformers) {
  std::ofstream(run_ / "config.json")
      << R"({"model": {"language_model": {"text": {"heads": 2, "dropout": 0.0, "do_layer_norm_before": true}}}})";
  std::ofstream(folder_ / "vocab.json") << "{}";
  std::ofstream(folder_ / "merges.txt") << "#version";
  EXPECT_TRUE(ends(run("weights export --from " + from() + " --to " + out("hf") + " --as opt --tokenizer " +
                       folder_.path().string()),
                   0, {"renamed: text.model.decoder.embed_tokens.weight -> model.decoder.embed_tokens.weight"}));
  expect_golden(out("hf"), "opt.bin/", {"lm_head.weight"});
  EXPECT_EQ(bytes_of(out("hf") + "/vocab.json") + bytes_of(out("hf") + "/merges.txt"), "{}#version");
  const Json config = parse_json(bytes_of(out("hf") + "/config.json"));
  const std::map<std::string, Json> wanted{{"model_type", "opt"},
                                           {"vocab_size", 20},
                                           {"word_embed_proj_dim", 8},
                                           {"hidden_size", 8},
                                           {"num_hidden_layers", 2},
                                           {"num_attention_heads", 2},
                                           {"ffn_dim", 16},
                                           {"max_position_embeddings", 10},
                                           {"do_layer_norm_before", true},
                                           {"dropout", 0.0},
                                           {"tie_word_embeddings", true}};
  for (const auto& [key, value] : wanted) EXPECT_EQ(config[key], value) << key;
  // What was written is a source again, and says its own heads.
  EXPECT_TRUE(ends(run("weights export --from " + out("hf") + " --to " + out("hf2") + " --as opt --dtype f32"), 0, {}));
  EXPECT_EQ(parse_json(bytes_of(out("hf2") + "/config.json")), config);
}

TEST_F(WeightsExport, FindsTheConfigurationHoweverTheFolderIsSpelled) {
  std::ofstream(run_ / "config.json") << R"({"model": {"language_model": {"text": {"heads": 2}}}})";
  const std::string step = checkpoint_.filename().string();
  for (const auto& [folder, spelled] : {std::pair(run_, from() + "/"), std::pair(run_, "checkpoints/" + step + "/"),
                                        std::pair(run_ / "checkpoints", step), std::pair(checkpoint_, std::string(".")),
                                        std::pair(checkpoint_, std::string("adapter.safetensors")),
                                        std::pair(run_, std::string("checkpoints/../") + "checkpoints/" + step)}) {
    fs::remove_all(out("hf"));
    EXPECT_TRUE(ends(
        run("weights export --from " + spelled + " --to " + out("hf") + " --as opt", "-C " + folder.string()), 0, {}))
        << spelled;
    EXPECT_EQ(parse_json(bytes_of(out("hf") + "/config.json"))["num_attention_heads"], 2) << spelled;
  }
}

TEST_F(WeightsExport, AsksForHeadsWhereNobodyKnowsThem) {
  EXPECT_TRUE(ends(run("weights export --from " + from() + " --to " + out("hf") + " --as opt"), 2,
                   {"--heads", "no published model is 8 wide"}));
  EXPECT_FALSE(fs::exists(out("hf")));
  EXPECT_TRUE(ends(run("weights export --from " + from() + " --to " + out("hf") + " --as opt --heads 3"), 2,
                   {"heads must divide the width 8; got 3"}));
  EXPECT_TRUE(ends(run("weights export --from " + from() + " --to " + out("hf") + " --as opt --heads 4"), 0, {}));
  EXPECT_TRUE(
      ends(run("weights export --from " + from() + " --to " + out("hf") + " --as opt --heads 4 --tokenizer /no/such"),
           4, {"cannot copy /no/such/vocab.json"}));
}

TEST_F(WeightsExport, VisionBecomesAFileOfTimm) {
  EXPECT_TRUE(ends(run("weights export --from " + from() + " --to " + out("vit.safetensors") + " --as timm_vit"), 0,
                   {"renamed: vision.head.weight -> head.weight"}));
  expect_golden(out("vit.safetensors"), "timm/");
  EXPECT_TRUE(ends(run("weights export --from " + from() + " --to " + out("timm") + " --as timm_vit"), 0, {}));
  expect_golden(out("timm"), "timm/");
}

TEST_F(WeightsCommands, SayWhatIsWrong) {
  const std::string to = " --to " + out("x.safetensors") + " --as ";
  EXPECT_TRUE(
      ends(run("weights import --from " + weight_file("opt.bin") + to + "gpt"), 2, {"--as must be one of raw, opt"}));
  EXPECT_TRUE(ends(run("weights import --from " + weight_file("opt.bin") + to + "opt --dtype f8"), 2,
                   {"--dtype must be keep, f32, bf16 or f16; got f8"}));
  EXPECT_TRUE(ends(run("weights import --from " + weight_file("opt.bin") + " --to x.bin --as opt"), 2,
                   {"--to must end in .safetensors; got x.bin"}));
  EXPECT_TRUE(
      ends(run("weights import --from " + weight_file("opt.bin") + to + "timm_vit"), 3, {"got none of them among 37"}));
  EXPECT_TRUE(ends(run("weights import --from /no/such" + to + "opt"), 3, {"a file of weights", "No such file"}));
  EXPECT_TRUE(ends(run("weights import --from " + weight_file("refused/os_system.pth") + to + "raw"), 3,
                   {"os_system.pth", "global posix.system", "nothing was executed"}));
  EXPECT_FALSE(fs::exists("executed"));
  EXPECT_TRUE(ends(run("weights import --from " + weight_file("dtypes.pth") + " --to /no/such/x.safetensors --as raw"),
                   4, {"/no/such"}));
  EXPECT_TRUE(ends(run("weights export --from " + weight_file("opt.bin") + " --to " + out("x") + " --as raw"), 2,
                   {"--as must be epalm, opt or timm_vit; got raw"}));
  EXPECT_TRUE(
      ends(run("weights export --from " + weight_file("checkpoint.pth") + " --to " + out("x.bin") + " --as epalm"), 2,
           {"--to must end in .pth"}));
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(WeightsExport, NeedsAFolderThatCanBeMade) {
  std::ofstream(out("file")) << "x";
  EXPECT_TRUE(ends(run("weights export --from " + from() + " --to " + out("file") + "/hf --as opt --heads 2"), 4,
                   {"weights export: cannot make the folder " + out("file") + "/hf: "}));
}

TEST_F(WeightsCommands, ImportNamesMissingTensorsAndWritesNothing) {
  SafetensorsWriter writer(out("cut.safetensors"),
                           {{"cls_token", {{1, 1, 4}, DType::kF32}}, {"blocks.0.norm1.weight", {{4}, DType::kF32}}});
  writer.write(std::vector<std::byte>(32));
  writer.finish();
  EXPECT_TRUE(ends(
      run("weights import --from " + out("cut.safetensors") + " --to " + out("x.safetensors") + " --as timm_vit"), 3,
      {"16 missing", "expected a whole model of kind timm_vit: 16 problems", "missing: 'blocks.0.norm1.bias'"}));
  EXPECT_FALSE(fs::exists(out("x.safetensors")));
}

TEST_F(WeightsCommands, InspectShowsEveryKind) {
  EXPECT_TRUE(ends(run("weights inspect " + weight_file("checkpoint.pth")), 0,
                   {"connector.0.weight", "metadata epoch = 7", "metadata torch.not_read = optimizer"}));
  EXPECT_TRUE(
      ends(run("weights inspect --json " + weight_file("compressed.npz")), 0, {"layer/int64", "\"dtype\": \"F16\""}));
  EXPECT_TRUE(ends(run("weights inspect " + weight_file("sharded")), 0, {"pytorch_model-00002-of-00002.bin"}));
}

/// Most memory that the program had at once, in bytes.
int64_t peak_of(const std::vector<std::string>& arguments) {
  std::vector<char*> words;
  const std::string program = std::getenv("PERMAFROST_PROGRAM");
  words.push_back(const_cast<char*>(program.c_str()));
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    freopen("/dev/null", "w", stdout);
    execv(program.c_str(), words.data());
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  return int64_t{usage.ru_maxrss} * 1024;
}

constexpr int64_t kLargeElements = 8 << 20, kLargest = kLargeElements * 4;

/// Four tensors of 32 MiB, two of them transposed. In a function of its own: the memory of whoever forks counts as the
/// child's until it becomes another program.
void write_large(const std::string& path) {
  using namespace testing;
  std::vector<std::string> items;
  std::vector<ZipEntry> entries(1);
  for (const std::string key : {"0", "1", "2", "3"}) {
    items.push_back(p_text("t" + key));
    const bool transposed = key == "1" || key == "2";
    items.push_back(p_tensor(p_storage("FloatStorage", key, kLargeElements), 0, {2048, 4096},
                             transposed ? std::vector<int64_t>{1, 2048} : std::vector<int64_t>{4096, 1}));
    entries.push_back({.name = "a/data/" + key, .data = std::string(static_cast<size_t>(kLargest), key[0])});
  }
  entries[0] = {.name = "a/data.pkl", .data = p_file(p_dict(items))};
  std::ofstream(path, std::ios::binary) << zip_bytes(entries);
}

TEST_F(WeightsCommands, ImportNeedsTheLargestTensorAnd64MiB) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "Sanitizers keep freed memory and shadows of it: what the program needs by itself cannot be seen";
#endif
  write_large(out("large.pth"));
  for (const char* dtype : {"keep", "bf16"}) {
    const int64_t peak = peak_of({"weights", "import", "--from", out("large.pth"), "--to", out("large.safetensors"),
                                  "--as", "raw", "--dtype", dtype});
    EXPECT_LE(peak, kLargest + (64 << 20)) << dtype;
    EXPECT_GE(peak, kLargest) << "a transposed tensor is loaded whole";
    RecordProperty(dtype, std::to_string(peak));
  }
}

}  // namespace
}  // namespace permafrost
