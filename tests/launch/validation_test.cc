// Validation as users meet it: the best checkpoint, the end for want of anything better, and runs from trained
// parameters.
#include "launch/metrics/jsonl.h"
#include "tests/launch/class_shards.h"
#include "tests/launch/training_fixture.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

const std::string kEveryStep = " --set validation.every_steps=1 --set validation.samples=8";

TEST_F(Training, ValidationLeavesTheRunAsItIs) {
  ASSERT_TRUE(ends(train("--set data.transform=TRAIN", "without"), 0, {}));
  ASSERT_TRUE(ends(train("--set data.transform=TRAIN" + kEveryStep, "with"), 0, {"validation after step 1: loss "}));
  EXPECT_EQ(losses("with"), losses("without"));
  EXPECT_EQ(adapter_hash("with"), adapter_hash("without"));
  EXPECT_TRUE(validations("without").empty());
  EXPECT_FALSE(fs::exists(dir("without") / "checkpoints" / "best"));
  EXPECT_FALSE(summary("without").contains("best_value"));
}

TEST_F(Training, ValidationLooksAtOtherDataWithoutAugmentation) {
  fs::copy(photos(), folder_ / "others", fs::copy_options::recursive);
  Json fewer = captions();
  auto& annotations = fewer["annotations"];
  annotations.erase(annotations.begin() + 3, annotations.end());
  write_file(folder_ / "others" / "captions.json", json_text(fewer));
  const std::string others = " --set validation.every_steps=2 --set data.transform=TRAIN --set evaluation.data.root=" +
                             (folder_ / "others").string();
  ASSERT_TRUE(ends(train(others, "a"), 0, {"on 3 samples, the best so far"}));
  ASSERT_TRUE(ends(train(others + " --set evaluation.data.transform=TRAIN --set evaluation.data.shuffle=true "
                                  "--set evaluation.data.seed=7",
                         "b"),
                   0, {}));
  EXPECT_EQ(validations("a"), validations("b"));
  // By hand: the same weights, continued with no step, measured by the final check on that data alone.
  ASSERT_TRUE(ends(train("--init-from " + (dir("a") / "checkpoints" / "step-00000004").string() +
                             " --set data.captions=" + (folder_ / "others" / "captions.json").string() +
                             " --set train.max_steps=1 --set optimizer.lr=1e-30 --set schedule.kind=CONSTANT --set "
                             "schedule.warmup_steps=0 --set train.final_check.loss=true",
                         "c"),
                   0, {}));
  const double validated = validations("a").back()["value"];
  EXPECT_NEAR(summary("c")["final_nats_per_token"], validated, 1e-5 * validated) << "other micro-batches";
}

TEST_F(Training, KeepsTheBestCheckpointBesideTheLatestOnes) {
  ASSERT_TRUE(
      ends(train(worse_and_worse() + " --set train.max_steps=6 --set checkpoint.every_steps=1 --set checkpoint.keep=2"),
           0, {"validation after step 6: loss "}));
  const std::vector<Json> all = validations("run");
  ASSERT_EQ(all.size(), 6u);
  size_t best = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i]["step"], i);
    EXPECT_EQ(all[i]["best"], i == 0 || all[i]["value"] < all[best]["value"]);
    if (all[i]["value"] < all[best]["value"]) best = i;
    EXPECT_EQ(all[i]["best_value"], all[best]["value"]);
    EXPECT_EQ(all[i]["best_step"], best + 1);
    EXPECT_EQ(all[i]["without_better"], i - best);
  }
  ASSERT_LT(best, 4u) << "or the best would be among the latest";
  std::vector<std::string> folders;
  for (const auto& entry : fs::directory_iterator(dir() / "checkpoints")) folders.push_back(entry.path().filename());
  std::ranges::sort(folders);
  EXPECT_EQ(folders, (std::vector<std::string>{"best", "step-00000005", "step-00000006"}));
  Json kept = position("run", "best");
  EXPECT_EQ(kept["best"]["measured_on"].get<std::string>().size(), 64u);
  kept["best"].erase("measured_on");
  EXPECT_EQ(kept["validated_step"], best + 1);
  EXPECT_EQ(kept["step"], best + 1);
  EXPECT_EQ(kept["best"],
            (Json{{"metric", "loss"}, {"value", all[best]["value"]}, {"step", best + 1}, {"without_better", 0}}));
  EXPECT_EQ(kept["adapter_sha256"], adapter_hash("run", "best"));
  const Json said = summary("run");
  EXPECT_EQ(said["best_metric"], "loss");
  EXPECT_EQ(said["best_value"], all[best]["value"]);
  EXPECT_EQ(said["best_step"], best + 1);
  EXPECT_EQ(said["best_checkpoint"], (dir() / "checkpoints" / "best").string());
  EXPECT_EQ(said["stopped_early"], false);
  // It is a checkpoint like any other: a run goes on from it.
  fs::create_directories(dir("copy") / "checkpoints");
  char name[32];
  std::snprintf(name, sizeof name, "step-%08d", static_cast<int>(best + 1));
  fs::rename(dir() / "checkpoints" / "best", dir("copy") / "checkpoints" / name);
  EXPECT_TRUE(ends(train(worse_and_worse() + " --set train.max_steps=6 --resume", "copy"), 0,
                   {"resumed at step " + std::to_string(best + 1)}));
  std::vector<std::string> rest = losses("run");
  rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  EXPECT_EQ(losses("copy"), rest);
  EXPECT_EQ(validations("copy").back(), all.back());
}

TEST_F(Training, StopsEarly) { expect_stops_early(""); }

TEST_F(Training, RemembersTheBestWhenResumed) {
  const std::string settings = worse_and_worse() + " --set checkpoint.every_steps=1 --set checkpoint.keep=9 ";
  ASSERT_TRUE(ends(train(settings + "--set train.max_steps=5", "whole"), 0, {}));
  ASSERT_TRUE(ends(train(settings + "--set train.max_steps=3", "parts"), 0, {}));
  ASSERT_TRUE(ends(train(settings + "--set train.max_steps=5 --resume", "parts"), 0, {"resumed at step 3"}));
  EXPECT_EQ(validations("parts"), validations("whole"));
  EXPECT_EQ(position("parts", "step-00000005")["best"], position("whole", "step-00000005")["best"]);
  EXPECT_EQ(position("parts", "best"), position("whole", "best"));
  // Another way to validate is no other run.
  EXPECT_TRUE(ends(train(settings + "--set train.max_steps=6 --set validation.every_steps=2 --set validation.samples=3 "
                                    "--resume",
                         "parts"),
                   0,
                   {"resume: validation looks at other samples, or decodes in another way, than before: what was best",
                    "validation after step 6: loss ", "on 3 samples, the best so far"}));
}

TEST_F(Training, ValidatesOnceMoreBehindTheLastStep) {
  ASSERT_TRUE(ends(train("--set validation.every_steps=3"), 0,
                   {"validation after step 3: loss ", "validation after step 4: loss "}));
  EXPECT_EQ(validations("run").size(), 2u);
  EXPECT_EQ(position("run", "step-00000004")["validated_step"], 4);
  ASSERT_TRUE(ends(train("--set validation.every_steps=4", "b"), 0, {"validation after step 4: loss "}));
  EXPECT_EQ(validations("b").size(), 1u) << "once";
  ASSERT_TRUE(ends(train("--set validation.every_steps=9", "c"), 0, {"validation after step 4: loss "}));
  EXPECT_TRUE(fs::exists(dir("c") / "checkpoints" / "best")) << "there is always one";
  // Nothing is left to do.
  EXPECT_TRUE(ends(train("--set validation.every_steps=3 --resume"), 0, {"resumed at step 4"}));
  EXPECT_EQ(validations("run").size(), 2u);
}

TEST_F(Training, StopsBetweenValidationsOnASignal) {
  const std::string log = dir("log").string();
  const char* program = std::getenv("PERMAFROST_PROGRAM");
  const std::string script =
      "bash -c '" + std::string(program) + " " + arguments("--set train.max_steps=100000" + kEveryStep) + " > " + log +
      " 2>&1 & child=$!; for i in $(seq 200); do sleep 0.1; grep -q \"validation after step 2\" " + log +
      " && break; done; kill -USR1 $child; wait $child'";
  const int status = std::system(script.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 8) << read_file(log);
  const size_t steps = losses("run").size();
  EXPECT_GE(steps, 2u);
  EXPECT_EQ(validations("run").size(), steps - 1) << "who stops a run does not wait for a validation";
  EXPECT_EQ(summary("run")["stopped_early"], false);
  EXPECT_TRUE(
      ends(train("--resume" + kEveryStep + " --set train.max_steps=" + std::to_string(steps + 1)), 0,
           {"resumed at step " + std::to_string(steps), "validation after step " + std::to_string(steps) + ":"}));
  const std::vector<Json> all = validations("run");
  ASSERT_EQ(all.size(), steps + 1) << "but the run that goes on begins with it";
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i]["step"], i);
}

TEST_F(Training, FinalCheckWorksBehindValidation) {
  const std::string check = " --set train.final_check.loss=true --set train.final_check.exchanged_images=true";
  ASSERT_TRUE(ends(train(check, "without"), 0, {"final_nats_per_token_exchanged_images"}));
  ASSERT_TRUE(ends(train(check + kEveryStep, "with"), 0, {"final_nats_per_token_exchanged_images"}));
  for (const char* key : {"final_nats_per_token", "final_nats_per_token_exchanged_images", "final_samples"})
    EXPECT_EQ(summary("with")[key], summary("without")[key]) << key;
}

TEST_F(Training, KeepsTheBestCheckpointWhenTheDiskIsFull) {
  ASSERT_TRUE(ends(train(kEveryStep), 0, {}));
  const std::string best = adapter_hash("run", "best");
  // Step 5 is better still, and cannot be kept.
  EXPECT_TRUE(ends(train("--resume --set train.max_steps=6" + kEveryStep, "run", on_a_full_disk()), 4,
                   {"step 5/6", "cannot write ", "best.tmp/adapter.safetensors: File too large"}));
  EXPECT_EQ(adapter_hash("run", "best"), best);
  EXPECT_FALSE(fs::exists(dir() / "checkpoints" / "best.tmp"));
}

TEST_F(Training, RefusesToValidateOnUnusableData) {
  EXPECT_TRUE(ends(train(kEveryStep + " --set evaluation.data.root=" + (folder_ / "none").string()), 3,
                   {(folder_ / "none").string()}));
  write_file(photos() / "images" / "broken.jpg", "no photograph");
  Json broken = captions();
  broken["images"][0]["file_name"] = "broken.jpg";
  write_file(photos() / "broken.json", json_text(broken));
  EXPECT_TRUE(ends(train(kEveryStep + " --set evaluation.data.captions=broken.json", "b"), 3, {"broken.jpg"}));
  EXPECT_TRUE(ends(train(kEveryStep + " --set evaluation.data.captions=broken.json --set "
                                      "evaluation.data.image_policy=SKIP --set validation.samples=0",
                         "c"),
                   0, {"on 22 samples"}));
}

// --- other metrics ---------------------------------------------------------------------------------------------------

TEST_F(Training, KeepsTheBestByAShareThatIsBetterWhenHigher) {
  write_class_shards(photos(), folder_ / "shards");
  std::string settings =
      "--set validation.every_steps=5 --set validation.metric=CLASS_ACCURACY --set "
      "train.final_check.loss=true --set optimizer.lr=3e-3 --set schedule.kind=CONSTANT --set "
      "checkpoint.every_steps=5 ";
  for (const std::string& setting : classifier_settings(folder_ / "shards")) settings += " --set " + setting;
  ASSERT_TRUE(
      ends(train(settings + " --set train.max_steps=60", "whole"), 0,
           {"vision: RANDOM weights from seed 42", "all of which train", "validation after step 60: class_accuracy "}));
  const std::vector<Json> all = validations("whole");
  ASSERT_EQ(all.size(), 12u);
  double best = -1;
  for (const Json& one : all) {
    EXPECT_EQ(one["best"], one["value"] > best) << one;
    best = std::max(best, one["value"].get<double>());
  }
  EXPECT_GT(best, all.front()["value"]);
  EXPECT_EQ(summary("whole")["best_metric"], "class_accuracy");
  EXPECT_EQ(summary("whole")["best_value"], best);
  // In two parts, the second of which continues from the best itself where it is the latest.
  ASSERT_TRUE(ends(train(settings + " --set train.max_steps=30", "parts"), 0, {}));
  ASSERT_TRUE(ends(train(settings + " --set train.max_steps=60 --resume", "parts"), 0, {"resumed at step 30"}));
  EXPECT_EQ(validations("parts"), all);
  EXPECT_EQ(adapter_hash("parts", "best"), adapter_hash("whole", "best"));
  // By another metric, what was best is forgotten, and said so.
  EXPECT_TRUE(
      ends(train(settings + " --set train.max_steps=65 --set validation.metric=LOSS --resume", "parts"), 0,
           {"validation.metric was class_accuracy and is loss", "validation after step 65: loss ", "the best so far"}));
}

TEST_F(Training, ValidatesByGeneratedTexts) {
  const std::string settings =
      "--set validation.every_steps=2 --set validation.metric=BLEU_4 --set validation.samples=5 "
      "--set evaluation.decoding.max_new_tokens=8";
  ASSERT_TRUE(ends(train("", "without"), 0, {}));
  ASSERT_TRUE(ends(train(settings, "with"), 0, {"validation after step 4: bleu_4 ", "on 5 samples"}));
  EXPECT_EQ(losses("with"), losses("without"));
  EXPECT_EQ(adapter_hash("with"), adapter_hash("without"));
  ASSERT_EQ(validations("with").size(), 2u);
  EXPECT_EQ(summary("with")["best_metric"], "bleu_4");
}

TEST_F(Training, SaysAtTheStartThatThereAreNoAnswers) {
  Json list = Json::array();
  for (int i = 0; i < 4; ++i)
    list.push_back({{"question_id", i}, {"img_id", captions()["images"][0]["file_name"]}, {"sent", "what is there?"}});
  write_file(photos() / "unanswered.json", json_text(list));
  const std::string settings =
      "--set evaluation.data.task=VQA --set evaluation.data.format=VLT5 --set evaluation.data.image_name=%s "
      "--set evaluation.data.questions=unanswered.json --set validation.every_steps=100 --set "
      "validation.metric=VQA_ACCURACY";
  const Outcome given = train(settings);
  EXPECT_TRUE(
      ends(given, 3, {"validation.metric: vqa_accuracy needs answers in evaluation.data; got none to 4 questions"}));
  EXPECT_EQ(given.output.find("step 1/"), std::string::npos);
}

// --- runs from trained parameters -----------------------------------------------------------------------------------

TEST_F(Training, StartsANewRunFromTrainedParameters) {
  ASSERT_TRUE(ends(train("", "first"), 0, {}));
  const fs::path checkpoint = dir("first") / "checkpoints" / "step-00000004";
  ASSERT_TRUE(ends(train("--init-from " + checkpoint.string() + kEveryStep, "folder"), 0,
                   {"adapter: ", "adapter.safetensors", "step 1/4"}));
  // The file by itself, so that the optimizer beside it cannot be read: both begin with a fresh one.
  fs::copy_file(checkpoint / "adapter.safetensors", folder_ / "alone.safetensors");
  ASSERT_TRUE(ends(train("--init-from " + (folder_ / "alone.safetensors").string(), "file"), 0, {"step 1/4"}));
  EXPECT_EQ(losses("folder"), losses("file"));
  ASSERT_TRUE(ends(train("--set weights.adapter=" + (checkpoint / "adapter.safetensors").string(), "field"), 0, {}));
  EXPECT_EQ(losses("field"), losses("file"));
  EXPECT_NE(losses("file"), losses("first"));
  EXPECT_EQ(summary("folder")["init_from"], (checkpoint / "adapter.safetensors").string());
  EXPECT_NE(
      read_file(dir("folder") / "config.textproto").find("adapter: \"" + (checkpoint / "adapter.safetensors").string()),
      std::string::npos);
  EXPECT_FALSE(summary("first").contains("init_from"));
}

TEST_F(Training, RemembersWhereItBeganWhenResumed) {
  ASSERT_TRUE(ends(train("", "first"), 0, {}));
  const fs::path checkpoint = dir("first") / "checkpoints" / "step-00000004";
  const std::string from = (checkpoint / "adapter.safetensors").string();
  ASSERT_TRUE(ends(train("--init-from " + checkpoint.string()), 0, {}));
  ASSERT_TRUE(ends(train("--resume --set train.max_steps=5"), 0, {"resumed at step 4"}));
  ASSERT_TRUE(ends(train("--resume --set train.max_steps=6"), 0, {"resumed at step 5"}));
  EXPECT_EQ(summary("run")["init_from"], from);
  EXPECT_NE(read_file(dir() / "config.textproto").find("adapter: \"" + from + '"'), std::string::npos);
  EXPECT_EQ(parse_json(read_file(dir() / "config.json"))["weights"]["adapter"], from);
  // Whatever is named besides --resume, which the checkpoint replaces.
  ASSERT_TRUE(ends(train("--resume --set train.max_steps=5 --set weights.adapter=" + from, "first"), 0, {}));
  EXPECT_FALSE(summary("first").contains("init_from"));
  // So a run that has lost its checkpoints is not begun from elsewhere.
  fs::remove_all(dir() / "checkpoints");
  EXPECT_TRUE(ends(train("--resume"), 2, {"resume: ", "has no complete checkpoint", "weights.adapter = " + from}));
}

TEST_F(Training, RefusesToStartFromTwoPlaces) {
  ASSERT_TRUE(ends(train("", "first"), 0, {}));
  const std::string from = (dir("first") / "checkpoints" / "step-00000004").string();
  EXPECT_TRUE(
      ends(train("--resume --init-from " + from, "first"), 2, {"expected one of --resume", "--init-from", "got both"}));
  EXPECT_TRUE(ends(train("--init-from " + from + " --set weights.adapter=" + from + "/adapter.safetensors"), 2,
                   {"expected one of --init-from and weights.adapter; got both", from}));
  EXPECT_TRUE(ends(train("--init-from " + from, "first"), 4, {"--run-dir must be new or empty"}));
  EXPECT_TRUE(ends(train("--init-from " + (folder_ / "nothing").string()), 3, {"nothing"}));
}

TEST_F(Training, ARunWithoutCheckpointIsNotResumedFromElsewhere) {
  ASSERT_TRUE(ends(train("", "first"), 0, {}));
  const std::string from = (dir("first") / "checkpoints" / "step-00000004" / "adapter.safetensors").string();
  ASSERT_TRUE(ends(train("--init-from " + from), 0, {}));
  const std::vector<std::string> all = losses("run");
  fs::remove_all(dir() / "checkpoints" / "step-00000004");  // as if it had been killed before the first
  EXPECT_TRUE(ends(train("--resume"), 2,
                   {"resume: ", "has no complete checkpoint", "weights.adapter = " + from + "; got none",
                    "say --set weights.adapter=" + from + " besides --resume"}));
  ASSERT_TRUE(ends(train("--resume --set weights.adapter=" + from), 0, {"starting from the beginning"}));
  EXPECT_EQ(losses("run"), all);
}

TEST_F(Training, RefusesToStartFromAPart) {
  ASSERT_TRUE(ends(train("", "first"), 0, {}));
  const std::string from = "--init-from " + (dir("first") / "checkpoints" / "step-00000004").string();
  // One connector for all levels instead of three, wider, and another prompt: everything that does not fit is named.
  EXPECT_TRUE(ends(train(from + " --set model.epalm.connector=SHARED --set model.epalm.vision.mlp_dim=128 --set "
                                "model.epalm.prompt.kind=TABLE"),
                   3,
                   {"missing: 'prompt_module.prefix_embedding.0.weight'", "connector.1.weight", "connector.2.bias",
                    "misshapen: 'vision.blocks.0.mlp.fc1.weight' must be (128, 64); got (256, 64)",
                    "misshapen: 'vision.blocks.2.mlp.fc2.weight'"}));
}

}  // namespace
}  // namespace permafrost
