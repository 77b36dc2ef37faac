// The program as users meet it: what it prints and how it ends.
#include <string>

#include "core/base/json.h"
#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {
namespace {

TEST(Program, InfoDescribesTheInstallation) {
  EXPECT_TRUE(ends(run("info"), 0,
                   {"permafrost 0.", "oneDNN 2.", "instruction sets", "nccl              ", "memory", "cores",
                    "ranks             1"}));
  const Outcome json = run("info --json");
  ASSERT_EQ(json.code, 0);
  const auto info = parse_json(json.output);
  EXPECT_TRUE(info["commit"].is_null() || info["commit"].get<std::string>().size() == 12);
  EXPECT_EQ(info["ranks"]["world"], 1);
  EXPECT_NE(info["nccl"]["version"].is_null(), info["nccl"]["missing"].is_null()) << info["nccl"];
  EXPECT_NE(info["cudnn"]["version"].is_null(), info["cudnn"]["missing"].is_null()) << info["cudnn"];
  EXPECT_GE(info["cores"].get<int>(), 1);
  EXPECT_GT(info["memory_bytes"].get<int64_t>(), 0);
  for (const char* set : {"avx2", "avx512", "avx512_bf16", "amx_bf16"})
    EXPECT_TRUE(info["instruction_sets"][set].is_boolean());
}

TEST(Program, UsageErrorsEndWithTwoAndSayWhereHelpIs) {
  EXPECT_TRUE(ends(run(""), 2, {"permafrost: expected a command:", " info", "; got none", "See permafrost --help"}));
  EXPECT_TRUE(ends(run("trian configs/x"), 2, {"expected a command:", "; got 'trian'"}));
  EXPECT_TRUE(ends(run("info --jsn"), 2, {"permafrost info:", "--jsn", "See permafrost info --help"}));
  EXPECT_TRUE(ends(run("data sample-photos"), 2, {"permafrost data sample-photos: --out is required"}));
  EXPECT_TRUE(ends(run("data sample-photos --out x --count 0"), 2, {"--count: Value 0 not in range 1 to 100000"}));
  EXPECT_TRUE(ends(run("--log loud info"), 2, {"--log: loud not in {info,warning,error}"}));
}

TEST(Program, HelpAndVersionEndWell) {
  EXPECT_TRUE(ends(run("--help"), 0, {"Usage: permafrost", "info", "data", "--log"}));
  EXPECT_TRUE(ends(run("--version"), 0, {"permafrost 0."}));
  EXPECT_TRUE(ends(run("data sample-photos --help"), 0, {"--count", "=96", "--size", "=64", "pixels"}));
}

TEST(Program, StorageErrorsEndWithFour) {
  EXPECT_TRUE(ends(run("data sample-photos --out /proc/none"), 4,
                   {"permafrost: sample photos: cannot make the folder /proc/none/images"}));
}

TEST(Program, WritesSamplePhotos) {
  const ScratchFolder folder;
  EXPECT_TRUE(ends(run("data sample-photos --count 2 --size 16 --out " + folder.path().string()), 0, {}));
  for (const char* name :
       {"captions.json", "images/000000.jpg", "images/000001.png", "tokenizer/vocab.json", "tokenizer/merges.txt"})
    EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;
}

TEST(Program, GeneratesTheDemoDataOnce) {
  const ScratchFolder folder;
  const std::string command =
      "data demo --pretrain 3 --text 3 --train 3 --val 4 --test 4 --out " + folder.path().string();
  EXPECT_TRUE(ends(run(command), 0, {": 3 images to pre-train on, 3 texts, 3 images to train on"}));
  for (const char* name :
       {"dataset.json", "tokenizer/vocab.json", "annotations/test.jsonl", "train/shard-00000-of-00001.h5"})
    EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;
  EXPECT_TRUE(ends(run(command), 0, {" is complete: "}));
  EXPECT_TRUE(
      ends(run(command + " --seed 1"), 2, {"permafrost: data demo: a folder without a dataset", "dataset.json]"}));
  EXPECT_TRUE(ends(run("data demo --out x --train -1"), 2, {"--train: Value -1 not in range 0 to 10000000"}));
  EXPECT_TRUE(ends(run("data demo --out x --format zip"), 2, {"--format: zip not in {shards,coco}"}));
  EXPECT_TRUE(ends(run("data demo --out /proc/none"), 4, {"cannot make the folder /proc/none"}));
}

TEST(Program, KernelsOfADeviceThatIsNotThere) {
  EXPECT_TRUE(ends(run("bench kernels --device tpu"), 2, {"--device: tpu not in {cpu,cuda}"}));
  const Outcome outcome = run("bench kernels --device cuda --quick --only nothing");
  if (outcome.code == 0) GTEST_SKIP() << "there is a GPU";
  const bool built = outcome.output.find("this build has no CUDA backend") == std::string::npos;
  EXPECT_TRUE(ends(outcome, built ? 2 : 7, {"CUDA needs a GPU; got none: "}));
}

TEST(Program, ABrokenLauncherEndsWithTwo) {
  EXPECT_TRUE(
      ends(run("info", "PMI_SIZE=two PMI_RANK=0"), 2, {"expected a whole number, 0 and up, in PMI_SIZE; got 'two'"}));
}

TEST(Program, LogsWhatALauncherSaysWhenAsked) {
  const Outcome quiet = run("info", "PMI_SIZE=1 PMI_RANK=0");
  EXPECT_TRUE(ends(quiet, 0, {"launcher PMI"}));
  EXPECT_EQ(quiet.output.find("PMI_SIZE"), std::string::npos);
  EXPECT_TRUE(ends(run("--log info info", "PMI_SIZE=1 PMI_RANK=0"), 0, {"environment: PMI_SIZE=1 PMI_RANK=0"}));
}

}  // namespace
}  // namespace permafrost
