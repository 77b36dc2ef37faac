// plan, weights, data inspect and the help of every command, as users meet them. (probe has a file of its own.)
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "core/base/json.h"
#include "core/weights/safetensors.h"
#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

std::string preset(const std::string& name) {
  return std::string(PERMAFROST_SOURCE) + "/configs/" + name + ".textproto";
}

Json plan_of(const std::string& arguments) {
  const Outcome outcome = run("plan --json " + arguments);
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  return outcome.code == 0 ? parse_json(outcome.output) : Json();
}

std::vector<std::string> all_presets() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(PERMAFROST_SOURCE) / "configs"))
    if (entry.path().extension() == ".textproto") names.push_back(entry.path().stem().string());
  return names;
}

// --- plan ------------------------------------------------------------------------------------------------------------

TEST(PlanCommand, PlansEveryPresetWithoutWeights) {
  const std::map<std::string, std::pair<int64_t, int64_t>> published{
      {"epalm_lin_vitb_opt350m_coco", {787'456, 417'782'528}},
      {"epalm_ptl_vitl_opt6.7b_coco", {4'239'360, 6'966'014'976}},
      {"epalm_ptl_vitl_opt6.7b_vqa", {4'239'360, 6'966'014'976}},
      {"epalm_vitb_opt2.7b_coco", {24'949'760, 2'762'345'216}},
      {"epalm_vitb_opt2.7b_vqa", {24'949'760, 2'762'345'216}},
      {"epalm_vitb_opt125m_coco", {4'732'416, 215'770'368}},
      {"projector_vitl_opt1.3b_coco", {2'099'200, 1'621'158'912}},
      {"projector_vitb_opt125m_coco", {590'592, 211'628'544}},
      {"adaptors_opt125m", {3'550'464, 128'789'760}}};
  size_t counted = 0;
  const std::vector<std::string> names = all_presets();
  ASSERT_GE(names.size(), 7u);
  for (const std::string& name : names) {
    const Json plan = plan_of(preset(name));
    const int64_t trainable = plan["parameters"]["trainable"], total = plan["parameters"]["total"];
    if (const auto known = published.find(name); known != published.end()) {
      EXPECT_EQ(trainable, known->second.first) << name;
      EXPECT_EQ(total, known->second.second) << name;
      ++counted;
    } else if (name == "epalm_demo" || name == "photos_captions" || name == "photos_vqa") {
      EXPECT_GT(trainable, 0) << name;
      EXPECT_LE(20 * trainable, total) << name << " trains at most 5 %";
    } else {
      EXPECT_EQ(trainable, total) << name << " trains everything";
    }
    for (const char* kind : {"memory", "traffic"}) {
      int64_t sum = 0;
      for (const auto& [key, bytes] : plan[kind].items())
        if (key != "total_bytes") sum += bytes.get<int64_t>();
      EXPECT_EQ(plan[kind]["total_bytes"], sum) << name << ' ' << kind;
    }
    EXPECT_EQ(plan["traffic"]["total_bytes"], 0) << name << ": one rank exchanges nothing";
  }
  EXPECT_EQ(counted, published.size());
}

TEST(PlanCommand, IsTheSameEveryTimeAlsoForLargeWorlds) {
  for (const std::string world : {"", " --ranks 64 --nodes 8 --threads 4"}) {
    const Json first = plan_of(preset("epalm_vitb_opt125m_coco") + world),
               second = plan_of(preset("epalm_vitb_opt125m_coco") + world);
    EXPECT_EQ(first["hash"].get<std::string>().size(), 64u);
    EXPECT_EQ(first, second);
  }
  const Json large = plan_of(preset("epalm_vitb_opt125m_coco") + " --ranks 64 --nodes 8 --threads 4");
  EXPECT_EQ(large["world"], (Json{{"ranks", 64}, {"nodes", 8}, {"threads", 4}}));
  const int64_t own = large["memory"]["total_bytes"].get<int64_t>() - large["memory"]["frozen_bytes"].get<int64_t>(),
                shared = large["node_memory"]["frozen_bytes"];
  EXPECT_EQ(large["node_memory"]["total_bytes"], shared + 8 * own);
  EXPECT_EQ(large["memory"]["frozen_bytes"], shared / 8) << "blocks of 4096 bytes divide by 8";
  EXPECT_EQ(large["slots"], 1) << "4 micro-batches over 64 ranks";
  EXPECT_GT(large["traffic"]["reduced_gradients_bytes"], 0);
  EXPECT_LT(large["memory"]["optimizer_bytes"],
            plan_of(preset("epalm_vitb_opt125m_coco"))["memory"]["optimizer_bytes"]);
}

/// What stands between backticks.
std::vector<std::string> quoted(const std::string& text) {
  std::vector<std::string> names;
  for (size_t at = text.find('`'); at != std::string::npos; at = text.find('`', at + 1)) {
    const size_t end = text.find('`', at + 1);
    names.push_back(text.substr(at + 1, end - at - 1));
    at = end;
  }
  return names;
}

/// The keys that docs/plan.md lists: "memory.total_bytes", "units[].class".
std::set<std::string> documented_keys() {
  std::istringstream page(read_file(fs::path(PERMAFROST_SOURCE) / "docs/plan.md"));
  std::set<std::string> keys;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| `")) continue;
    const size_t bar = line.find('|', 1);
    std::string scope;  // of ".x" behind "memory.total_bytes"
    for (const std::string& key : quoted(line.substr(0, bar))) {
      if (key.ends_with("[]")) {  // the second column lists the keys of each element
        for (const std::string& inner : quoted(line.substr(bar))) keys.insert(key + "." + inner);
        continue;
      }
      const size_t dot = key.find('.');
      if (dot != std::string::npos && dot > 0) scope = key.substr(0, dot);
      keys.insert(dot == 0 ? scope + key : key);
    }
  }
  return keys;
}

/// The keys that a plan has, in the same notation; of a list of objects those that each of them has.
std::set<std::string> keys_of(const Json& plan) {
  std::set<std::string> keys;
  for (const auto& [key, value] : plan.items()) {
    const bool objects = value.is_array() && !value.empty() && value.front().is_object();
    if (!value.is_object() && !objects) keys.insert(key);
    if (value.is_object())
      for (const auto& [inner, ignored] : value.items()) keys.insert(key + "." + inner);
    if (!objects) continue;
    for (const Json& element : value) {
      EXPECT_EQ(element.size(), value.front().size()) << key;
      for (const auto& [inner, ignored] : element.items()) keys.insert(key + "[]." + inner);
    }
  }
  return keys;
}

TEST(PlanCommand, HasTheKeysOfItsPageAndNoOthers) {
  const std::set<std::string> documented = documented_keys();
  for (const char* arguments : {"", " --ranks 8 --nodes 2"})
    EXPECT_EQ(keys_of(plan_of(preset("quickstart") + arguments)), documented);
  EXPECT_TRUE(documented.contains("units[].flops_backward") && documented.contains("programs[].peak_live_bytes") &&
              documented.contains("node_memory.total_bytes"));
}

TEST(PlanCommand, PrintsATable) {
  const Outcome table = run("plan " + preset("epalm_lin_vitb_opt350m_coco") + " --ranks 2");
  EXPECT_TRUE(ends(table, 0,
                   {"world: 2 ranks on 1 nodes", "parameters: 417782528 total, 787456 trainable", "connector",
                    "memory per node: "}));
}

TEST(PlanCommand, ReportsPatternsBesideAllOtherProblems) {
  const Outcome outcome = run("plan " + preset("quickstart") +
                              R"( --set optimizer.beta1=2 --set 'freeze+={pattern: "nothing.*" trainable: true}')" +
                              R"( --set 'optimizer.groups+={pattern: "typo*"}')");
  EXPECT_EQ(outcome.code, 2);
  for (const char* part :
       {"has 3 problems", "optimizer.beta1: expected", "freeze[1].pattern: expected a pattern that matches a parameter",
        "got 'nothing.*', which matches none", "optimizer.groups[0].pattern", "got 'typo*'"})
    EXPECT_NE(outcome.output.find(part), std::string::npos) << part << "\n" << outcome.output;
}

TEST(PlanCommand, RefusesWorldsAndConfigurations) {
  EXPECT_TRUE(ends(run("plan " + preset("quickstart") + " --ranks 4 --nodes 7"), 2,
                   {"every node needs a rank", "4 ranks on 7 nodes"}));
  EXPECT_TRUE(ends(run("plan " + preset("quickstart") + " --ranks 0"), 2,
                   {"permafrost plan: --ranks: Value 0 not in range 1 to 1048576"}));
  EXPECT_TRUE(ends(run("plan"), 2, {"permafrost plan: config is required"}));
  EXPECT_TRUE(
      ends(run("plan /no/such.textproto"), 2, {"expected a readable file in protobuf text; got '/no/such.textproto'"}));
  EXPECT_TRUE(ends(run("plan " + preset("quickstart") + " --set model.epalm.vision.heads=3"), 2,
                   {"model.epalm.vision.dim: expected a multiple of heads = 3; got 64"}));
  EXPECT_TRUE(ends(run("plan " + preset("quickstart") + " --set precision.compute=FP32 --set weights.text=/no/such"), 3,
                   {"/no/such: expected a file of weights; cannot open: No such file or directory"}));
}

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
  const std::vector<std::string> flags{"--evaluation", "--json",   "--resume",    "--grads",  "--list",
                                       "--quick",      "--uneven", "--questions", "--partial"};
  const std::map<std::string, std::map<std::string, std::string>> commands{
      {"train",
       {{"--set", "path.to.field=value"},
        {"--run-dir", "Folder"},
        {"--resume", "checkpoint"},
        {"--init-from", "default: none"}}},
      {"plan",
       {{"--set", ""},
        {"--ranks", "Ranks"},
        {"--nodes", "Nodes"},
        {"--threads", "threads"},
        {"--cores-per-node", "Cores"},
        {"--node-memory", "GiB"},
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
