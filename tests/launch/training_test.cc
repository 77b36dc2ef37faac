// Training as users meet it: runs, resuming, and everything that can be wrong with what they give us.
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/weights/safetensors.h"
#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
void write_file(const fs::path& path, const std::string& content) { std::ofstream(path, std::ios::binary) << content; }

/// A folder with generated photographs that tests may damage, and a run beside it.
class Training : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(run("data sample-photos --count 12 --size 32 --out " + photos().string()).code, 0);
  }
  fs::path photos() const { return folder_ / "photos"; }
  fs::path dir(const std::string& name = "run") const { return folder_ / name; }
  static std::string config() { return std::string(PERMAFROST_SOURCE) + "/configs/quickstart.textproto"; }

  std::string arguments(const std::string& more = "", const std::string& name = "run") const {
    return "train " + config() + " --set data.root=" + photos().string() + " --run-dir " + dir(name).string() +
           " --set train.max_steps=4 --set schedule.warmup_steps=1 --set train.global_batch=8 --set train.micro_batch=4 --set checkpoint.every_steps=0" +
           " --set train.final_check.loss=false --set train.final_check.exchanged_images=false --set precision.compute=FP32 " + more;
  }
  Outcome train(const std::string& more = "", const std::string& name = "run", const std::string& before = "") const {
    return run(arguments(more, name), before);
  }
  std::string adapter_hash(const std::string& name, const std::string& step = "step-00000004") const {
    const std::string bytes = read_file(dir(name) / "checkpoints" / step / "adapter.safetensors");
    return bytes.empty() ? "none" : sha256(bytes.data(), bytes.size());
  }
  std::string first_image() const { return parse_json(read_file(photos() / "captions.json"))["images"][0]["file_name"]; }

  ScratchFolder folder_;
};

TEST_F(Training, WritesWhatItSays) {
  EXPECT_TRUE(ends(train(), 0, {"vision: RANDOM weights from seed 42", "step 4/4", "summary of", "adapter_sha256", "frozen_unchanged: true"}));
  for (const char* file : {"config.textproto", "config.json", "plan.txt", "plan.json", "metrics.jsonl", "summary.json"})
    EXPECT_TRUE(fs::exists(dir() / file)) << file;
  std::ifstream metrics(dir() / "metrics.jsonl");
  int lines = 0;
  for (std::string line; std::getline(metrics, line); ++lines) {
    const auto j = parse_json(line);
    for (const char* key : {"step", "loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "step_ms", "wait_ms", "exposed_comm_ms",
                            "gathered_bytes", "reduced_bytes", "arena_bytes", "pss_bytes"})
      EXPECT_TRUE(j.contains(key)) << key;
    EXPECT_EQ(j["step"], lines);
  }
  EXPECT_EQ(lines, 4);
  const auto summary = parse_json(read_file(dir() / "summary.json"));
  EXPECT_EQ(summary["adapter_sha256"], adapter_hash("run"));
}

TEST_F(Training, ResumesBitForBit) {
  ASSERT_EQ(train("", "whole").code, 0);
  ASSERT_EQ(train("--set checkpoint.every_steps=2", "parts").code, 0);
  fs::remove_all(dir("parts") / "checkpoints" / "step-00000004");
  fs::create_directories(dir("parts") / "checkpoints" / "step-00000003.tmp");  // of a run that died while writing
  EXPECT_TRUE(ends(train("--set checkpoint.every_steps=2 --resume", "parts"), 0, {"resumed at step 2"}));
  EXPECT_EQ(adapter_hash("whole"), adapter_hash("parts"));
  std::string whole = read_file(dir("whole") / "metrics.jsonl"), parts = read_file(dir("parts") / "metrics.jsonl");
  const auto losses = [](const std::string& text) {
    std::vector<std::string> all;
    for (size_t at = 0; (at = text.find("\"loss\"", at)) != std::string::npos; ++at) all.push_back(text.substr(at, text.find(',', at) - at));
    return all;
  };
  EXPECT_EQ(losses(whole), losses(parts));
}

TEST_F(Training, ResumesFromTheBeginningWhenNothingWasSaved) {
  fs::create_directories(dir() / "checkpoints");
  write_file(dir() / "metrics.jsonl", "{\"step\": 0, \"lo");
  EXPECT_TRUE(ends(train(), 4, {"--run-dir must be new or empty", "--resume"}));
  EXPECT_TRUE(ends(train("--resume"), 0, {"no complete checkpoint", "step 4/4"}));
}

TEST_F(Training, RefusesToResumeAnotherGraph) {
  ASSERT_EQ(train().code, 0);
  EXPECT_TRUE(ends(train("--resume --set model.epalm.connector=SHARED"), 3,
                   {"belongs to another graph", "connector"}));
}

TEST_F(Training, RefusesToContinueWithOtherSettings) {
  ASSERT_EQ(train().code, 0);
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6 --set train.global_batch=4 --set data.seed=7"), 2,
                   {"train.global_batch: expected 8; got 4", "data.seed: expected 42; got 7"}));
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6 --set parallel.threads=1 --set data.prefetch=1"), 0, {"resumed at step 4"}));
}

TEST_F(Training, RefusesADamagedCheckpoint) {
  ASSERT_EQ(train().code, 0);
  const fs::path file = dir() / "checkpoints" / "step-00000004" / "optimizer.safetensors";
  std::string bytes = read_file(file);
  bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 1);
  write_file(file, bytes);
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6"), 3, {"optimizer.safetensors is damaged", "expected SHA-256"}));
}

TEST_F(Training, KeepsThePreviousCheckpointWhenTheDiskIsFull) {
  ASSERT_EQ(train().code, 0);
  const std::string before = adapter_hash("run");
  // A limit on file size stands for the full disk: writing fails in the same way.
  const std::string limited = "bash -c 'ulimit -f 200; exec \"$@\"' --";
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6", "run", limited), 4, {"checkpoint", "adapter.safetensors"}));
  EXPECT_EQ(adapter_hash("run"), before);
  EXPECT_FALSE(fs::exists(dir() / "checkpoints" / "step-00000006"));
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6"), 0, {"resumed at step 4"}));
}

TEST_F(Training, NamesTheFirstValueThatIsNotFinite) {
  EXPECT_TRUE(ends(train("--set optimizer.lr=1e30 --set schedule.kind=CONSTANT --set schedule.warmup_steps=0 --set optimizer.clip_norm=0"), 5,
                   {"must be finite", "first in ", "unit ", "with samples "}));
}

TEST_F(Training, RefusesRunDirectoriesItCannotWrite) {
  write_file(folder_ / "file", "not a folder");
  EXPECT_TRUE(ends(train("", "file/run"), 4, {"cannot make the run directory", "file/run"}));
}

TEST_F(Training, NamesImagesThatCannotBeUsed) {
  const fs::path image = photos() / "images" / first_image();
  const std::string good = read_file(image);
  write_file(image, "");
  EXPECT_TRUE(ends(train("", "a"), 3, {first_image(), "empty"}));
  write_file(image, good.substr(0, good.size() / 2));
  EXPECT_TRUE(ends(train("", "b"), 3, {first_image()}));
  write_file(image, "GIF89a, and more that is no photograph");
  EXPECT_TRUE(ends(train("", "c"), 3, {first_image()}));
  EXPECT_EQ(train("--set data.image_policy=SKIP", "d").code, 0);
  fs::remove(image);
  EXPECT_TRUE(ends(train("", "e"), 3, {first_image()}));
}

TEST_F(Training, RefusesDatasetsWithoutSamples) {
  write_file(photos() / "captions.json", R"({"images": [], "annotations": []})");
  EXPECT_TRUE(ends(train("", "a"), 3, {"captions.json"}));
  write_file(photos() / "captions.json", "{\"images\": [");
  EXPECT_TRUE(ends(train("", "b"), 3, {"captions.json"}));
  fs::remove(photos() / "captions.json");
  EXPECT_TRUE(ends(train("", "c"), 3, {"captions.json"}));
}

TEST_F(Training, RefusesTextsOverTheLength) {
  EXPECT_TRUE(ends(train("--set data.long_text=FAIL --set data.max_text_tokens=8 --set data.length_buckets=8"), 3, {"8", "sample"}));
}

TEST_F(Training, RefusesAVocabularyThatDoesNotFit) {
  EXPECT_TRUE(ends(train("--set model.epalm.text.vocab=100"), 3, {"100", "260"}));
}

TEST_F(Training, ReportsAllConfigurationProblemsAtOnce) {
  EXPECT_TRUE(ends(train("--set train.micro_batch=3 --set model.epalm.end_layer=9 --set optimizer.beta1=2"), 2,
                   {"train.global_batch: expected a multiple of micro_batch = 3", "end_layer", "optimizer.beta1"}));
  EXPECT_TRUE(ends(train("--set train.max_step=3"), 2, {"max_step", "max_steps"}));
  EXPECT_TRUE(ends(train("--set freeze+={pattern: \"nothing.*\" trainable: true}"), 2, {}));
}

TEST_F(Training, RefusesWeightFiles) {
  const fs::path good = folder_ / "weights";
  ASSERT_EQ(run("weights random " + config() + " --set data.root=x --dtype f32 --out " + good.string()).code, 0);
  const fs::path file = good / "vision" / "model.safetensors";
  const std::string set = "--set weights.vision=" + file.string();
  EXPECT_TRUE(ends(train(set, "good"), 0, {"vision: " + file.string()}));
  EXPECT_TRUE(ends(train("--set weights.vision=/no/such/file.safetensors", "a"), 3, {"/no/such/file.safetensors"}));
  EXPECT_TRUE(ends(train("--set weights.vision=" + (good / "text").string(), "b"), 3, {"weights must fit the model exactly", "missing: 'cls_token'", "more"}));
  const std::string bytes = read_file(file);
  write_file(file, bytes.substr(0, bytes.size() - 100));
  EXPECT_TRUE(ends(train(set, "c"), 3, {file.string()}));
  write_file(file, "PK\x03\x04 this is a zip archive");
  EXPECT_TRUE(ends(train(set, "d"), 3, {file.string()}));
  EXPECT_TRUE(ends(train("--set model.epalm.vision.dim=32 " + set, "e"), 3, {file.string()}));
}

TEST_F(Training, MoreRanksThanSamplesOrMicroBatchesIsFine) {
  ASSERT_EQ(train("--set train.global_batch=4", "one").code, 0);
  const char* program = std::getenv("PERMAFROST_PROGRAM");
  const std::string several = std::string(PERMAFROST_SOURCE) + "/launch/mpirun.sh -n 3 " + program + " " + arguments("--set train.global_batch=4", "three");
  EXPECT_EQ(std::system((several + " > " + dir("log").string() + " 2>&1").c_str()), 0) << read_file(dir("log"));
  EXPECT_EQ(adapter_hash("one"), adapter_hash("three"));
}

TEST_F(Training, ARankThatFailsTakesTheOthersDown) {
  // One photograph is damaged: the rank that decodes it fails before the vote, where the others wait for it.
  write_file(photos() / "images" / first_image(), "no photograph");
  const char* program = std::getenv("PERMAFROST_PROGRAM");
  const auto begin = std::chrono::steady_clock::now();
  const int status = std::system((std::string(PERMAFROST_SOURCE) + "/launch/mpirun.sh -n 3 " + program + " " +
                                  arguments("--set train.max_steps=100000") + " > " + dir("log").string() + " 2>&1").c_str());
  const std::string log = read_file(dir("log"));
  EXPECT_EQ(WEXITSTATUS(status), 3) << log;
  EXPECT_NE(log.find(first_image()), std::string::npos) << log;
  EXPECT_NE(log.find("/3: "), std::string::npos) << log;  // "permafrost: rank r/3: ..."
  // Starting three ranks included; the group's own tests hold the ten seconds of a failure itself.
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 60.0);
}

TEST_F(Training, StopsOnASignalWithACheckpoint) {
  const std::string log = dir("log").string();
  const char* program = std::getenv("PERMAFROST_PROGRAM");
  const std::string script = "bash -c '" + std::string(program) + " " + arguments("--set train.max_steps=100000") + " > " + log +
                             " 2>&1 & child=$!; for i in $(seq 200); do sleep 0.1; grep -q \"step 2/\" " + log +
                             " && break; done; kill -TERM $child; wait $child'";
  const int status = std::system(script.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 8) << read_file(log);
  EXPECT_FALSE(fs::is_empty(dir() / "checkpoints"));
}

}  // namespace
}  // namespace permafrost
