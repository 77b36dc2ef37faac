#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/base/sha256.h"
#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {

/// A folder with generated photographs that tests may damage, and runs of the program beside it.
class Training : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(run("data sample-photos --count 12 --size 32 --out " + photos().string()).code, 0);
  }
  std::filesystem::path photos() const { return folder_ / "photos"; }
  std::filesystem::path dir(const std::string& name = "run") const { return folder_ / name; }
  static std::string config() { return std::string(PERMAFROST_SOURCE) + "/configs/quickstart.textproto"; }

  /// The configuration and what tests set in it.
  std::string settings() const {
    return config() + " --set data.root=" + photos().string() +
           " --set train.max_steps=4 --set schedule.warmup_steps=1 --set train.global_batch=8 --set "
           "train.micro_batch=4 --set checkpoint.every_steps=0" +
           " --set train.final_check.loss=false --set train.final_check.exchanged_images=false --set "
           "precision.compute=FP32 ";
  }
  std::string arguments(const std::string& more = "", const std::string& name = "run") const {
    return "train " + settings() + " --run-dir " + dir(name).string() + " " + more;
  }
  /// `before` stands before the program: what starts it.
  Outcome train(const std::string& more = "", const std::string& name = "run", const std::string& before = "") const {
    return run(arguments(more, name), before);
  }
  static std::string on_ranks(int ranks) {
    return std::string(PERMAFROST_SOURCE) + "/launch/mpirun.sh -n " + std::to_string(ranks);
  }
  /// Starts ranks of which one has more arguments than the others; they may not contain a single quote.
  static std::string with_another_rank(int ranks, int odd, const std::string& arguments) {
    return on_ranks(ranks) + " bash -c 'if [ \"$OMPI_COMM_WORLD_RANK\" = " + std::to_string(odd) +
           " ]; then exec \"$@\" " + arguments + "; fi; exec \"$@\"' --";
  }
  /// A limit on file size stands for the full disk: writing fails in the same way.
  static std::string on_a_full_disk() { return "bash -c 'ulimit -S -f 200; exec \"$@\"' --"; }

  std::string adapter_hash(const std::string& name, const std::string& step = "step-00000004") const {
    const std::string bytes = read_file(dir(name) / "checkpoints" / step / "adapter.safetensors");
    EXPECT_FALSE(bytes.empty()) << name << " has no adapter of " << step;
    return sha256(bytes.data(), bytes.size());
  }
  /// As printed: equal text is equal bits.
  std::vector<std::string> losses(const std::string& name) const {
    const std::string text = read_file(dir(name) / "metrics.jsonl");
    std::vector<std::string> all;
    for (size_t at = 0; (at = text.find("\"loss\": ", at)) != std::string::npos; ++at)
      all.push_back(text.substr(at, text.find(',', at) - at));
    return all;
  }
  /// Lines of validations, without how long they took.
  std::vector<Json> validations(const std::string& name) const {
    std::vector<Json> all;
    std::ifstream file(dir(name) / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      Json json = parse_json(line);
      if (!json.contains("metric")) continue;
      EXPECT_EQ(json.erase("seconds"), 1u);
      all.push_back(json);
    }
    return all;
  }
  Json summary(const std::string& name) const { return parse_json(read_file(dir(name) / "summary.json")); }
  /// Without train.max_steps, which may change on the way.
  Json position(const std::string& name, const std::string& step) const {
    Json json = parse_json(read_file(dir(name) / "checkpoints" / step / "position.json"));
    json.erase("max_steps");
    return json;
  }
  Json captions() const { return parse_json(read_file(photos() / "captions.json")); }
  std::string first_image() const { return captions()["images"][0]["file_name"]; }

  /// Two runs, one of them interrupted after two steps, have the same adapter and losses.
  void expect_resumes_bit_for_bit(const std::string& before) const {
    ASSERT_TRUE(ends(train("", "whole", before), 0, {}));
    ASSERT_TRUE(ends(train("--set checkpoint.every_steps=2", "parts", before), 0, {}));
    std::filesystem::remove_all(dir("parts") / "checkpoints" / "step-00000004");
    std::filesystem::create_directories(dir("parts") / "checkpoints" /
                                        "step-00000003.tmp");  // of a run that died while writing
    EXPECT_TRUE(ends(train("--set checkpoint.every_steps=2 --resume", "parts", before), 0, {"resumed at step 2"}));
    EXPECT_EQ(adapter_hash("whole"), adapter_hash("parts"));
    EXPECT_EQ(losses("whole").size(), 4u);
    EXPECT_EQ(losses("whole"), losses("parts"));
  }
  /// A checkpoint that cannot be written ends the run and leaves the one before as it was, to go on from.
  void expect_keeps_the_previous_checkpoint(const std::string& before) const {
    ASSERT_TRUE(ends(train("", "run", before), 0, {}));
    const std::string hash = adapter_hash("run");
    EXPECT_TRUE(ends(train("--resume --set train.max_steps=6", "run", before + " " + on_a_full_disk()), 4,
                     {"step 6/6", "cannot write ", "step-00000006.tmp/adapter.safetensors: File too large"}));
    EXPECT_EQ(adapter_hash("run"), hash);
    EXPECT_FALSE(std::filesystem::exists(dir() / "checkpoints" / "step-00000006"));
    EXPECT_TRUE(ends(train("--resume --set train.max_steps=6", "run", before), 0, {"resumed at step 4", "step 6/6"}));
    EXPECT_NE(adapter_hash("run", "step-00000006"), hash);
  }
  /// Learning rates that make values infinite in step 1; the message says where and on which samples.
  void expect_names_the_first_value_that_is_not_finite(const std::string& before) const {
    const Outcome given = train(
        "--set optimizer.lr=1e30 --set schedule.kind=CONSTANT --set schedule.warmup_steps=0 --set "
        "optimizer.clip_norm=0",
        "run", before);
    EXPECT_TRUE(ends(given, 5,
                     {"train: step 1: loss and gradients must be finite; first in ", "] = ", " (unit ", "micro-batch ",
                      " with samples "}));
    EXPECT_EQ(given.output.find("found no bad value"), std::string::npos) << given.output;
  }

  /// A learning rate under which every step makes the loss worse.
  static std::string worse_and_worse() {
    return " --set optimizer.lr=0.3 --set schedule.kind=CONSTANT --set schedule.warmup_steps=0 --set "
           "optimizer.clip_norm=0 --set validation.every_steps=1 --set validation.samples=8 --set train.max_steps=40";
  }
  /// A run whose loss gets worse ends after `patience` validations, well, and once more when it is resumed.
  void expect_stops_early(const std::string& before) const {
    const std::string patient = worse_and_worse() + " --set validation.patience=3";
    const Outcome given = train(patient, "run", before);
    const Json best = summary("run");
    const int64_t step = best["best_step"], last = step + 3;
    EXPECT_TRUE(ends(given, 0,
                     {"stopped early after step " + std::to_string(last) + ": 3 validations without a better loss",
                      "summary of", "stopped_early: true"}));
    EXPECT_LT(last, 40);
    EXPECT_EQ(best["steps"], last);
    EXPECT_EQ(validations("run").back()["without_better"], 3);
    EXPECT_EQ(position("run", "best")["best"]["step"], step);
    char name[32];
    std::snprintf(name, sizeof name, "step-%08d", static_cast<int>(last));
    EXPECT_EQ(position("run", name)["best"]["without_better"], 3);
    EXPECT_TRUE(ends(train(patient + " --resume", "run", before), 0, {"resumed at step", "stopped early after step"}));
    EXPECT_EQ(losses("run").size(), static_cast<size_t>(last));
    EXPECT_TRUE(ends(train(worse_and_worse() + " --resume --set validation.patience=4", "run", before), 0,
                     {"stopped early after step " + std::to_string(last + 1) + ": 4 validations"}));
  }

  ScratchFolder folder_;
};

}  // namespace permafrost
