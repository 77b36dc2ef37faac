// weights, data inspect and the help of every command, as users meet them. (probe has a file of its own.)
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "core/base/json.h"
#include "core/weights/safetensors.h"
#include "tests/launch/plan_of.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

// --- weights ---------------------------------------------------------------------------------------------------------

/// The quickstart model with its backbones frozen, and a folder to write to.
class Weights : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text = read_file(preset("quickstart"));
    const size_t freeze = text.find("freeze {");
    ASSERT_NE(freeze, std::string::npos);
    text.erase(freeze, text.find('\n', freeze) - freeze);
    std::ofstream(config()) << text << "precision { compute: FP32 }\n";
  }
  std::string config() const { return (folder_ / "config.textproto").string(); }
  std::string out(const std::string& name) const { return (folder_ / name).string(); }
  Outcome random(const std::string& name, const std::string& more = "") const {
    return run("weights random " + config() + " --out " + out(name) + " " + more);
  }
  Json inspect(const std::string& path) const {
    const Outcome outcome = run("weights inspect --json " + path);
    EXPECT_EQ(outcome.code, 0) << outcome.output;
    return outcome.code == 0 ? parse_json(outcome.output) : Json();
  }
  std::string set(const std::string& name) const {
    return " --set weights.vision=" + out(name) + "/vision --set weights.text=" + out(name) + "/text";
  }

  ScratchFolder folder_;
};

TEST_F(Weights, RandomOnesCanBeInspected) {
  ASSERT_TRUE(ends(random("w"), 0,
                   {"vision: ", " tensors, ", "--set weights.vision=" + out("w") + "/vision", "--set weights.text="}));
  const Json text = inspect(out("w") + "/text"), vision = inspect(out("w") + "/vision/model.safetensors");
  EXPECT_EQ(text["files"].size(), 1u);
  EXPECT_EQ(text["totals"]["tensors"], text["tensors"].size());
  EXPECT_EQ(text["totals"]["by_dtype"].size(), 1u);
  EXPECT_EQ(text["totals"]["by_dtype"]["F16"]["bytes"], 2 * text["totals"]["elements"].get<int64_t>());
  const Json plan = plan_of(config());
  int64_t adapter = plan["parameters"]["trainable"];
  EXPECT_EQ(text["totals"]["elements"].get<int64_t>() + vision["totals"]["elements"].get<int64_t>() + adapter,
            plan["parameters"]["total"].get<int64_t>());
  bool found = false;
  for (const Json& tensor : text["tensors"]) {
    if (tensor["name"] != "model.decoder.embed_tokens.weight") continue;
    found = true;
    EXPECT_EQ(tensor["shape"], (Json{264, 64}));
    EXPECT_EQ(tensor["dtype"], "F16");
  }
  EXPECT_TRUE(found) << "published names: " << text["tensors"][0];
  EXPECT_TRUE(ends(run("weights inspect " + out("w") + "/vision"), 0,
                   {"model.safetensors", "patch_embed.proj.weight", "(64, 3, 8, 8)", "F16", "total: "}));
}

TEST_F(Weights, AreSplitIntoShardsOfTheWantedSize) {
  const std::string larger = "--dtype f32 --set model.epalm.text.layers=8 ";
  ASSERT_TRUE(ends(random("one", larger), 0, {" in 1 files"}));
  ASSERT_TRUE(ends(random("many", larger + "--shard-gb 0.001"), 0, {" files\n"}));
  EXPECT_TRUE(fs::exists(out("many") + "/text/model.safetensors.index.json"));
  Json one = inspect(out("one") + "/text"), many = inspect(out("many") + "/text");
  EXPECT_EQ(one["files"].size(), 1u);
  EXPECT_GT(many["files"].size(), 1u);
  for (const Json& file : many["files"])
    EXPECT_LT(file["bytes"].get<int64_t>(), 1'000'000 + 20'000) << "header included";
  EXPECT_EQ(one["totals"], many["totals"]);
  EXPECT_EQ(inspect(out("many") + "/text/model.safetensors.index.json")["totals"], many["totals"]);
  const std::string plan = config() + " --set model.epalm.text.layers=8";
  EXPECT_EQ(plan_of(plan + set("one"))["memory"], plan_of(plan + set("many"))["memory"]);
}

TEST_F(Weights, AreNotWrittenOverOthers) {
  ASSERT_EQ(random("w").code, 0);
  const std::string before = read_file(out("w") + "/vision/model.safetensors");
  EXPECT_TRUE(ends(random("w", "--dtype f32"), 4,
                   {"expected a folder without weights; got model.safetensors in " + out("w") + "/vision"}));
  EXPECT_EQ(read_file(out("w") + "/vision/model.safetensors"), before);
  EXPECT_TRUE(ends(random("v", "--dtype f8"), 2, {"--dtype", "f32, bf16 or f16", "f8"}));
  EXPECT_FALSE(fs::exists(out("v")));
  EXPECT_TRUE(ends(run("weights random " + config() + " --out /proc/none"), 4,
                   {"cannot make folder /proc/none/vision: No such file or directory"}));
  EXPECT_TRUE(ends(run("weights inspect /no/such"), 3,
                   {"/no/such: expected a file of weights; cannot open: No such file or directory"}));
  EXPECT_TRUE(ends(run("weights inspect " + config()), 3,
                   {config() + ": header length must be 2 to 100000000 bytes and within the file; got "}));
}

TEST_F(Weights, KeepTheirDtypeUnderFp32) {
  ASSERT_EQ(random("half").code, 0);
  ASSERT_EQ(random("full", "--dtype f32").code, 0);
  int64_t matrices = 0;  // vectors are kept in f32, other ranks in the compute dtype
  for (const char* part : {"/vision", "/text"}) {
    const Json weights = inspect(out("half") + part);
    for (const Json& tensor : weights["tensors"])
      if (tensor["shape"].size() == 2) matrices += tensor["elements"].get<int64_t>();
  }
  const auto weight_bytes = [&](const std::string& arguments) {
    int64_t bytes = 0;
    const Json plan = plan_of(config() + arguments);
    for (const Json& unit : plan["units"]) bytes += unit["weight_bytes"].get<int64_t>();
    return bytes;
  };
  const int64_t half = weight_bytes(set("half")), full = weight_bytes(set("full"));
  EXPECT_EQ(full - half, 2 * matrices);
  EXPECT_LT(half, full * 6 / 10);
  EXPECT_EQ(weight_bytes(set("half") + " --set precision.frozen_storage=FP32"), full);
}

TEST_F(Weights, RandomOnesTrainAndProbe) {
  ASSERT_EQ(random("w", "--shard-gb 0.001").code, 0);
  ASSERT_EQ(run("data sample-photos --count 4 --size 32 --out " + out("photos")).code, 0);
  const Outcome train =
      run("train " + config() + set("w") + " --set data.root=" + out("photos") + " --run-dir " + out("run") +
          " --set train.max_steps=1 --set schedule.warmup_steps=0 --set train.global_batch=4 --set train.micro_batch=4"
          " --set train.final_check.loss=false --set train.final_check.exchanged_images=false");
  EXPECT_TRUE(
      ends(train, 0, {"vision: " + out("w") + "/vision: ", "text: " + out("w") + "/text: ", "frozen_unchanged: true"}));
  EXPECT_EQ(train.output.find("RANDOM"), std::string::npos);

  std::vector<float> images(2 * 3 * 32 * 32, 0.5f);
  std::vector<int64_t> ids(2 * 7, 5), ones(2 * 7, 1);
  const TensorSpec pixels{{2, 3, 32, 32}, DType::kF32}, tokens{{2, 7}, DType::kI64};
  SafetensorsWriter batch(out("in.safetensors"),
                          {{"images", pixels}, {"input_ids", tokens}, {"labels", tokens}, {"attention_mask", tokens}});
  batch.write_tensor("images", Tensor(images.data(), pixels));
  batch.write_tensor("input_ids", Tensor(ids.data(), tokens));
  batch.write_tensor("labels", Tensor(ids.data(), tokens));
  batch.write_tensor("attention_mask", Tensor(ones.data(), tokens));
  batch.finish();
  EXPECT_TRUE(ends(run("probe --values loss,logits " + config() + set("w") + " --batch " + out("in.safetensors") +
                       " --out " + out("o.safetensors")),
                   0, {"vision: " + out("w") + "/vision: ", "text: "}));
  EXPECT_EQ(SafetensorsReader(out("o.safetensors")).at("logits").shape, (Shape{2, 8, 264}));
}

// --- data inspect ----------------------------------------------------------------------------------------------------

/// Checks one written sample: pixels, ids, and that the text is the caption between OPT's marks.
void expect_sample(const std::string& file, int64_t size) {
  const SafetensorsReader sample(file);
  ASSERT_EQ(sample.at("pixels").shape, (Shape{3, size, size}));
  EXPECT_EQ(sample.at("pixels").dtype, DType::kF32);
  std::vector<float> pixels(static_cast<size_t>(3 * size * size));
  sample.read("pixels", 0, std::as_writable_bytes(std::span(pixels)));
  for (float pixel : pixels) ASSERT_TRUE(pixel > -3 && pixel < 3) << "normalised; got " << pixel;
  EXPECT_NE(*std::ranges::min_element(pixels), *std::ranges::max_element(pixels)) << "one colour only";
  const Shape shape = sample.at("input_ids").shape;
  ASSERT_EQ(shape.rank(), 1);
  ASSERT_GE(shape[0], 3);
  EXPECT_EQ(sample.at("input_ids").dtype, DType::kI64);
  std::vector<int64_t> ids(static_cast<size_t>(shape[0]));
  sample.read("input_ids", 0, std::as_writable_bytes(std::span(ids)));
  EXPECT_EQ(ids.front(), 2);
  EXPECT_EQ(ids.back(), 2);
  const auto& metadata = sample.metadata();
  EXPECT_FALSE(metadata.at("caption").empty());
  EXPECT_EQ(metadata.at("text"), "</s>" + metadata.at("caption") + "</s>");
  EXPECT_TRUE(fs::exists(metadata.at("image"))) << metadata.at("image");
}

TEST(DataInspect, ShowsGeneratedPhotographs) {
  const ScratchFolder folder;
  const std::string photos = (folder / "photos").string(), out = (folder / "sample.safetensors").string();
  ASSERT_EQ(run("data sample-photos --count 3 --size 40 --out " + photos).code, 0);
  const std::string inspect = "data inspect " + preset("quickstart") + " --set data.root=" + photos;
  std::string captions = read_file(fs::path(photos) / "captions.json");
  for (const char* index : {"0", "5"}) {
    const Outcome shown = run(inspect + " --out " + out + " --index " + index);
    EXPECT_TRUE(
        ends(shown, 0,
             {"sample ", "\nimage " + photos + "/images/", " (40 x 40)\n", "\ncaption ", "\ntext </s>", "\nids 2 "}));
    expect_sample(out, 32);
    EXPECT_NE(captions.find(SafetensorsReader(out).metadata().at("caption")), std::string::npos);
  }
  // Two captions for each of the three images.
  EXPECT_TRUE(ends(run(inspect + " --index 6"), 2, {"--index must be 0 to 5; got 6"}));
  EXPECT_TRUE(ends(run(inspect + " --index -1"), 2, {"--index must be 0 to 5; got -1"}));
  EXPECT_TRUE(ends(run(inspect + " --out /proc/none/x.safetensors"), 4, {"cannot create /proc/none/x.safetensors"}));
  EXPECT_TRUE(ends(run("data inspect " + preset("quickstart")), 2, {"data.root: expected the folder of the dataset"}));
}

TEST(DataInspect, DrawsItsAugmentationFromTheEpoch) {
  const ScratchFolder folder;
  const std::string photos = (folder / "photos").string();
  ASSERT_EQ(run("data sample-photos --count 2 --size 40 --out " + photos).code, 0);
  const auto pixels = [&](const std::string& more) {
    const std::string out = (folder / "sample.safetensors").string();
    EXPECT_EQ(run("data inspect " + preset("quickstart") + " --set data.transform=TRAIN --set data.root=" + photos +
                  " --out " + out + " " + more)
                  .code,
              0);
    return SafetensorsReader(out).read_all("pixels");
  };
  const auto first = pixels("--epoch 1");
  EXPECT_EQ(first, pixels("--epoch 1"));
  EXPECT_NE(first, pixels("--epoch 2"));
  EXPECT_NE(first, pixels("--epoch 1 --set data.seed=7"));
}

TEST(DataInspect, ShowsRealPhotographs) {
  const char* data = std::getenv("PERMAFROST_TEST_DATA");
  if (!data) GTEST_SKIP() << "PERMAFROST_TEST_DATA does not name a folder with photographs";
  const fs::path photos = fs::path(data) / "coco_open";
  if (!fs::exists(photos)) GTEST_SKIP() << photos << " is not there";
  const ScratchFolder folder;
  const std::string out = (folder / "sample.safetensors").string();
  const std::string inspect = "data inspect " + preset("epalm_vitb_opt125m_coco") +
                              " --set data.transform=EVAL --set data.root=" + photos.string();
  ASSERT_TRUE(
      ends(run(inspect + " --index 3 --out " + out), 0, {"\nimage " + photos.string(), "\ntext </s>", "\nids 2 "}));
  expect_sample(out, 224);
  EXPECT_TRUE(ends(run(inspect + " --index 1000000"), 2, {"--index must be 0 to ", "got 1000000"}));
}

// --- help ------------------------------------------------------------------------------------------------------------

/// Options of a help text: name to everything said about it, lines joined.
std::map<std::string, std::string> options_in(const std::string& help) {
  std::map<std::string, std::string> options;
  std::istringstream lines(help);
  std::string* current = nullptr;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("  --")) {
      current = &options[line.substr(2, line.find_first_of(" ,", 2) - 2)];
      *current = line;
    } else if (line.starts_with("     ") && current) {
      *current += line;
    } else {
      current = nullptr;
    }
  }
  return options;
}

TEST(BenchComm, RunsAloneAndRefusesWhatMakesNoSense) {
  EXPECT_TRUE(ends(run("bench comm --max-bytes 4096 --rounds 1"), 0,
                   {"alone: nothing to compare with", "all_gather", "order_free", "node_registered", "#wrong"}));
  EXPECT_TRUE(ends(run("bench comm --min-bytes 4096 --max-bytes 1024"), 2,
                   {"must not exceed the largest (1024 bytes); got 4096 [param=--min-bytes]"}));
  EXPECT_TRUE(
      ends(run("bench comm --only mpi"), 2, {"a variant (node_registered, node_ordinary); got 'mpi' [param=--only]"}));
  EXPECT_TRUE(ends(run("bench comm --max-bytes 1024 --json /proc/none/x.jsonl"), 4,
                   {"a file that can be written was expected; got /proc/none/x.jsonl [param=--json]"}));
}

TEST(Help, ShowsEveryOptionWithDefaultAndUnit) {
  const std::vector<std::string> flags{"--evaluation", "--json",   "--resume",    "--grads",   "--list",
                                       "--quick",      "--uneven", "--questions", "--partial", "--tf32"};
  const std::map<std::string, std::map<std::string, std::string>> commands{
      {"train",
       {{"--set", "path.to.field=value"},
        {"--run-dir", "Folder"},
        {"--resume", "checkpoint"},
        {"--init-from", "default: none"},
        {"--trace", "Perfetto"},
        {"--trace-steps", "counted from 0"}}},
      {"plan",
       {{"--set", ""},
        {"--ranks", "Ranks"},
        {"--nodes", "Nodes"},
        {"--threads", "threads"},
        {"--cores-per-node", "Cores"},
        {"--node-memory", "GiB"},
        {"--device", "ms"},
        {"--ceilings", "per second"},
        {"--collectives", "nccl"},
        {"--nic-gbps", "Gb/s"},
        {"--launch-us", "microseconds"},
        {"--tf32", ""},
        {"--json", ""}}},
      {"probe",
       {{"--set", ""},
        {"--batch", "[B,3,H,W] F32"},
        {"--values", "comma-separated"},
        {"--grads", ""},
        {"--out", "F32"},
        {"--list", ""}}},
      {"eval",
       {{"--set", ""},
        {"--results", "image_id"},
        {"--annotations", "Karpathy"},
        {"--split", "restval"},
        {"--metrics", "comma-separated"},
        {"--partial", ""},
        {"--adapter", "checkpoint folder"},
        {"--out", "results.json"},
        {"--sheet", "PNG file"},
        {"--sheet-count", "Images"},
        {"--samples", "lines"},
        {"--json", ""}}},
      {"weights random",
       {{"--set", ""}, {"--out", "Folder"}, {"--dtype", "f32, bf16 or f16"}, {"--shard-gb", "GB (10^9 bytes)"}}},
      {"weights inspect", {{"--json", ""}}},
      {"weights import", {{"--from", ".npz"}, {"--to", "safetensors"}, {"--as", "timm_vit_npz"}, {"--dtype", "keep"}}},
      {"weights export",
       {{"--from", "adapter"},
        {"--to", ".pth"},
        {"--as", "epalm"},
        {"--dtype", "keep"},
        {"--tokenizer", "vocab.json"},
        {"--heads", "attention heads"}}},
      {"data inspect", {{"--set", ""}, {"--index", "from 0"}, {"--epoch", "from 0"}, {"--out", "[3,H,W] F32"}}},
      {"data pack", {{"--set", ""}, {"--out", "Folder"}, {"--shard-mb", "MB"}, {"--evaluation", "evaluation.data"}}},
      {"data sample-photos", {{"--out", "Folder"}, {"--count", "Images"}, {"--size", "pixels"}, {"--seed", ""}}},
      {"data demo",
       {{"--out", "Folder"},
        {"--seed", ""},
        {"--pretrain", "Images"},
        {"--text", "Texts"},
        {"--train", "Images"},
        {"--val", "Images"},
        {"--test", "Images"},
        {"--format", "shards"},
        {"--questions", "question"}}},
      {"data byte-tokenizer", {{"--out", "Folder"}}},
      {"bench memory", {{"--set", ""}, {"--steps", "Steps"}, {"--json", "file"}}},
      {"bench kernels",
       {{"--device", "cuda"},
        {"--json", "file"},
        {"--only", "rows"},
        {"--threads", "Threads"},
        {"--quick", "samples"}}},
      {"bench comm",
       {{"--json", "file"},
        {"--min-bytes", "bytes"},
        {"--max-bytes", "bytes"},
        {"--factor", "size"},
        {"--only", "rows"},
        {"--rounds", "Rounds"},
        {"--uneven", "Parts"}}},
      {"info", {{"--json", ""}}}};
  for (const auto& [command, expected] : commands) {
    const Outcome help = run(command + " --help");
    EXPECT_TRUE(ends(help, 0, {"Usage: permafrost " + command}));
    const auto options = options_in(help.output);
    EXPECT_EQ(options.size(), expected.size()) << command << ": " << help.output;
    for (const auto& [name, unit] : expected) {
      ASSERT_TRUE(options.contains(name)) << command << ' ' << name;
      const std::string& text = options.at(name);
      EXPECT_NE(text.find(unit), std::string::npos) << command << ": " << text;
      const bool flag = std::ranges::count(flags, name) > 0 && text.find(name + " FILE") == std::string::npos;
      if (flag) continue;  // off unless given
      const bool says = text.find("default") != std::string::npos ||
                        text.substr(0, text.find("  ", 4)).find('=') != std::string::npos;
      EXPECT_TRUE(says) << command << " does not say the default of " << text;
    }
  }
}

}  // namespace
}  // namespace permafrost
