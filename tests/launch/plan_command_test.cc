// permafrost plan, as users meet it.
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "tests/launch/plan_of.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> all_presets() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(PERMAFROST_SOURCE) / "configs"))
    if (entry.path().extension() == ".textproto") names.push_back(entry.path().stem().string());
  return names;
}

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

/// The keys that a section of docs/plan.md lists: "memory.total_bytes", "units[].class".
std::set<std::string> documented_keys(const std::string& heading = "## JSON keys") {
  std::istringstream page(read_file(fs::path(PERMAFROST_SOURCE) / "docs/plan.md"));
  std::set<std::string> keys;
  bool here = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("#")) here = line == heading;
    if (!here) continue;
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

TEST(PlanCommand, HasTheKeysOfItsPageForAGpuToo) {
  std::set<std::string> documented = documented_keys();
  documented.merge(documented_keys("### Of a plan for a GPU"));
  EXPECT_EQ(keys_of(plan_of(preset("quickstart") + " --set parallel.device=CUDA")), documented);
  documented.merge(documented_keys("### With --device"));
  EXPECT_EQ(keys_of(plan_of(preset("quickstart") + " --device h200 --ranks 8 --nodes 2")), documented);
  EXPECT_TRUE(documented.contains("device_memory.arena_bytes") && documented.contains("predicted_units[].bound"));
}

TEST(PlanCommand, ForecastsForGpusThatAreNotThere) {
  const std::string large = preset("epalm_vitb_opt2.7b_coco");
  const Outcome text = run("plan " + large + " --device h200 --ranks 64 --nodes 8");
  EXPECT_TRUE(ends(text, 0,
                   {"memory on each GPU: ", "memory of NVIDIA H200 SXM: ", ", fits", " ms predicted = inputs ",
                    "predicted for NVIDIA H200 SXM, not measured: bf16 products 664.4 TFLOP/s",
                    "collectives between GPUs (NCCL), 20 us each, NVLink 360.0 GB/s, network 42.5 GB/s per GPU"}));
  const Json h200 = plan_of(large + " --device h200"), a100 = plan_of(large + " --device a100");
  EXPECT_EQ(h200["compute"], "bf16") << "whatever this processor has";
  EXPECT_GT(a100["predicted"]["step_seconds"], h200["predicted"]["step_seconds"]);
  EXPECT_EQ(h200["rates"]["peak_flops"], 989.4e12);
  EXPECT_GT(h200["predicted"]["utilisation"], 0.01);
  EXPECT_LT(h200["predicted"]["utilisation"], 0.85 * 0.79);
  const std::string two = large + " --device h200 --ranks 2 --nodes 2";
  EXPECT_EQ(plan_of(two + " --nic-gbps 100")["rates"]["network_bytes_per_s"], 0.85 * 12.5e9);
  EXPECT_GT(plan_of(two + " --collectives host")["host_memory"]["staging_bytes"], 0);
  EXPECT_EQ(plan_of(two)["host_memory"]["staging_bytes"], 0);
  EXPECT_EQ(plan_of(two + " --launch-us 0")["predicted"]["launch_seconds"], 0);
  EXPECT_EQ(plan_of(two + " --set precision.compute=FP32 --tf32")["rates"]["products"], "tf32");
  EXPECT_EQ(plan_of(two + " --set precision.compute=FP32")["rates"]["peak_flops"], 67e12);
}

TEST(PlanCommand, StreamsWhatDoesNotFitOnTheDevice) {
  // 48 layers of 8192: 77 GB in bf16, beside 80 GB on the card.
  std::string huge = preset("epalm_ptl_vitl_opt6.7b_coco");
  for (const char* field :
       {"size=FREE", "vocab=50272", "layers=48", "hidden=8192", "ffn=32768", "heads=64", "max_positions=2048",
        "word_embed_proj_dim=8192", "do_layer_norm_before=true", "final_layer_norm=true"})
    huge += std::string(" --set model.epalm.text.") + field;
  huge += " --device ";
  EXPECT_TRUE(ends(run("plan " + huge + "h100"), 0,
                   {"with all weights resident a GPU would need ", "; copied ", " times per micro-batch",
                    "memory of NVIDIA H100 SXM: ", ", fits"}));
  EXPECT_TRUE(ends(run("plan " + huge + "h200"), 0, {"resident (fits: a GPU needs "}));
  EXPECT_TRUE(ends(run("plan " + huge + "h100 --set train.micro_batch=512 --set train.global_batch=512"), 0,
                   {", does NOT fit: short by "}));
}

TEST(PlanCommand, RefusesForecastsThatMakeNoSense) {
  const std::string plan = "plan " + preset("quickstart");
  EXPECT_TRUE(ends(run(plan + " --device b300"), 2, {"(h200, h100, a100) was expected; got 'b300' [param=--device]"}));
  EXPECT_TRUE(ends(run(plan + " --nic-gbps 100"), 2, {"--nic-gbps", "got no --device to forecast for"}));
  EXPECT_TRUE(ends(run(plan + " --ceilings x"), 2, {"--ceilings", "got no --device to forecast for"}));
  EXPECT_TRUE(ends(run(plan + " --device h200 --collectives gloo"), 2,
                   {"nccl or host expected; got 'gloo' [param=--collectives]"}));
  EXPECT_TRUE(ends(run(plan + " --device h200 --ceilings /no/such"), 4,
                   {"a file that can be read was expected; got /no/such [param=--ceilings]"}));
}

TEST(PlanCommand, TakesMeasuredCeilingsFromAFile) {
  const ScratchFolder folder;
  const std::string file = (folder / "ceilings.json").string();
  const std::string plan = preset("quickstart") + " --device h200 --ceilings " + file;
  std::ofstream(file) << R"({"matmul_flops": 7e14, "copy_bytes_per_s": 4e12})";
  const Json measured = plan_of(plan);
  EXPECT_EQ(measured["rates"]["product_flops"], 0.85 * 7e14);
  EXPECT_EQ(measured["rates"]["memory_bytes_per_s"], 0.85 * 4e12);
  EXPECT_EQ(measured["rates"]["products_measured"], true);
  EXPECT_TRUE(ends(run("plan " + plan), 0, {"595.0 TFLOP/s (0.85 of a measured ceiling)"}));
  for (const auto& [text, got] :
       std::map<std::string, std::string>{{"{", "no JSON"},
                                          {"{}", "{}"},
                                          {R"({"flops": 1})", "the key 'flops'"},
                                          {R"({"matmul_flops": -1})", "matmul_flops = -1"},
                                          {R"({"matmul_flops": "1"})", "no positive number"}}) {
    std::ofstream(file) << text;
    EXPECT_TRUE(ends(run("plan " + plan), 2, {"with matmul_flops, copy_bytes_per_s or both was expected; got ", got}));
  }
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

}  // namespace
}  // namespace permafrost
