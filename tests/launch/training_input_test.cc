// What can be wrong with what users give us: the exit code and the words for each.
#include "tests/launch/training_fixture.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

TEST_F(Training, NamesImagesThatCannotBeUsed) {
  const fs::path image = photos() / "images" / first_image();
  const std::string good = read_file(image), place = "[file=" + image.string() + "]";
  write_file(image, "");
  EXPECT_TRUE(ends(train("", "a"), 3, {"a JPEG or PNG file is expected; got an empty one " + place}));
  write_file(image, good.substr(0, good.size() / 2));
  EXPECT_TRUE(
      ends(train("", "b"), 3,
           {concat("a whole JPEG file is expected; got one truncated at ", good.size() / 2, " bytes ", place)}));
  write_file(image, "GIF89a, and more that is no photograph");
  EXPECT_TRUE(
      ends(train("", "c"), 3, {"a JPEG or PNG file is expected; got 38 bytes that begin with 47 49 46", place}));
  EXPECT_TRUE(ends(train("--set data.image_policy=SKIP", "d"), 0, {"skipped_samples: "}));
  fs::remove(image);
  EXPECT_TRUE(ends(train("", "e"), 3,
                   {"every listed image must be in the folder; got 1 of 12 missing, the first is " + image.string()}));
}

TEST_F(Training, RefusesDatasetsWithoutSamples) {
  const fs::path file = photos() / "captions.json";
  const std::string place = "[file=" + file.string() + "]";
  write_file(file, R"({"images": [], "annotations": []})");
  EXPECT_TRUE(ends(train("", "a"), 3, {"dataset: at least one caption is expected; got none " + place}));
  write_file(file, "{\"images\": [");
  EXPECT_TRUE(
      ends(train("", "b"), 3, {"json: well-formed JSON is expected; got a mistake at line 1, column 13", place}));
  write_file(file, "");
  EXPECT_TRUE(ends(train("", "c"), 3, {"json: ", "is expected; got ", place}));
  write_file(file, R"({"pictures": []})");
  EXPECT_TRUE(ends(train("", "d"), 3, {"images", "expected; got ", place}));
  fs::remove(file);
  EXPECT_TRUE(ends(train("", "e"), 3, {"a regular file is expected; got No such file or directory " + place}));
}

TEST_F(Training, RefusesTextsOverTheLength) {
  const std::string first = captions()["annotations"][0]["caption"];
  EXPECT_TRUE(ends(train("--set data.long_text=FAIL --set data.max_text_tokens=8 --set data.length_buckets=8"), 3,
                   {"text: at most 8 tokens are expected; got 37 in sample 0 (\"" + first +
                    "\"), and 24 of 24 texts are over [param=max_text_tokens]"}));
}

TEST_F(Training, RefusesAVocabularyThatDoesNotFit) {
  EXPECT_TRUE(ends(
      train("--set model.epalm.text.vocab=100"), 3,
      {"tokenizer: every id must be below the 100 embedding rows of the text model; got a vocabulary of 260 tokens"}));
}

TEST_F(Training, ReportsAllConfigurationProblemsAtOnce) {
  EXPECT_TRUE(ends(train("--set train.micro_batch=3 --set model.epalm.end_layer=9 --set optimizer.beta1=2"), 2,
                   {"has 3 problems", "train.global_batch: expected a multiple of micro_batch = 3; got 8",
                    "model.epalm.end_layer: expected 1 to 3; got 9", "optimizer.beta1: expected 0 to below 1; got 2"}));
  EXPECT_TRUE(ends(train("--set train.max_step=3"), 2, {"max_step", "max_steps"}));
}

TEST_F(Training, RefusesPatternsThatMatchNothing) {
  EXPECT_TRUE(ends(train("--set 'freeze+={pattern: \"nothing.*\" trainable: true}'"), 2,
                   {"freeze[1].pattern: expected a pattern that matches a parameter",
                    "got 'nothing.*', which matches none of them"}));
  const std::string group = " --set 'optimizer.groups+={pattern: \"conector*\" lr: 1e-3}'";
  const std::vector<std::string> unknown{"optimizer.groups[0].pattern: expected a pattern that matches a parameter",
                                         "got 'conector*', which matches none of them"};
  EXPECT_TRUE(ends(train(group), 2, unknown));
  EXPECT_TRUE(ends(run("plan " + config() + group), 2, unknown));
  // Parameters that are there, and frozen.
  const std::string frozen =
      " --set 'freeze[0].pattern=connector*' --set 'freeze+={pattern: \"*\" trainable: false}' --set "
      "'optimizer.groups+={pattern: \"vision.*\" lr: 1e-3}'";
  const std::vector<std::string> idle{
      "optimizer.groups: every group must match a trainable parameter; got none for groups[0] 'vision.*'"};
  EXPECT_TRUE(ends(train(frozen), 2, idle));
  EXPECT_TRUE(ends(run("plan " + config() + frozen), 2, idle));
}

TEST_F(Training, SaysWhichGroupsAQuirkIgnores) {
  const std::string prompts = "--set 'model.epalm.prompt={kind: TABLE length: 2}' --set quirks.prompt_lr_ignored=true";
  const std::string note = "the group of 'prompt_module.*' is ignored, as quirks.prompt_lr_ignored asks";
  EXPECT_TRUE(
      ends(train(prompts + " --set 'optimizer.groups+={pattern: \"prompt_module.*\" lr: 1e-5}'", "a"), 0, {note}));
  const Outcome quiet = train(prompts, "b");
  EXPECT_TRUE(ends(quiet, 0, {}));
  EXPECT_EQ(quiet.output.find("is ignored"), std::string::npos) << quiet.output;
  EXPECT_EQ(adapter_hash("a"), adapter_hash("b")) << "what is ignored has no effect";
  EXPECT_TRUE(ends(train(prompts + " --set 'optimizer.groups+={pattern: \"connector*\" lr: 1e-5}'", "c"), 2,
                   {"with quirks.prompt_lr_ignored, groups are expected for prompt_module.* alone",
                    "got groups[0] 'connector*', which matches connector."}));
}

/// Weights of the vision part as the program writes them, to be damaged.
class TrainingWeights : public Training {
 protected:
  void SetUp() override {
    Training::SetUp();
    ASSERT_EQ(run("weights random " + config() + " --set data.root=x --dtype f32 --out " + folder().string()).code, 0);
    good_ = read_file(file());
    ASSERT_FALSE(good_.empty());
  }
  fs::path folder() const { return folder_ / "weights"; }
  fs::path file() const { return folder() / "vision" / "model.safetensors"; }
  ::testing::AssertionResult refused(const std::string& content, const std::vector<std::string>& words,
                                     const std::string& more = "") {
    write_file(file(), content);
    std::vector<std::string> parts{file().string() + ": "};
    parts.insert(parts.end(), words.begin(), words.end());
    return ends(train("--set weights.vision=" + file().string() + " " + more, "run" + std::to_string(runs_++)), 3,
                parts);
  }
  /// The file with `from`, which its header has, replaced by as many characters.
  std::string changed(const std::string& from, const std::string& to) const {
    std::string bytes = good_;
    const size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos);
    EXPECT_EQ(from.size(), to.size());
    return bytes.replace(at, from.size(), to);
  }

  std::string good_;
  int runs_ = 0;
};

TEST_F(TrainingWeights, AreUsedWhenTheyFit) {
  EXPECT_TRUE(ends(train("--set weights.vision=" + file().string()), 0,
                   {"vision: " + file().string(), "text: RANDOM weights"}));
}

TEST_F(TrainingWeights, MustBeThere) {
  EXPECT_TRUE(ends(train("--set weights.vision=/no/such/file.safetensors"), 3,
                   {"/no/such/file.safetensors: expected a file of weights; cannot open: No such file or directory"}));
}

TEST_F(TrainingWeights, MustBeOfTheModel) {
  const Outcome given = train("--set weights.vision=" + (folder() / "text").string());
  EXPECT_TRUE(ends(given, 3,
                   {"weights must fit the model exactly", "missing: 'cls_token' (1, 1, 64)",
                    "missing: 'blocks.2.mlp.fc2.bias' (64)", "extra: 'model.decoder.layers.2.fc2.bias' (64) F32"}));
  EXPECT_TRUE(
      refused(good_,
              {"weights must fit the model exactly", "misshapen: 'cls_token' must be (1, 1, 32); got (1, 1, 64)",
               "misshapen: 'norm.bias' must be (32); got (64)"},
              "--set model.epalm.vision.dim=32"));
}

TEST_F(TrainingWeights, MustHaveANumberType) {
  EXPECT_TRUE(refused(changed(R"("cls_token":{"dtype":"F32")", R"("cls_token":{"dtype":"I32")"),
                      {"1 problem\n", "wrong dtype: 'cls_token' must be F32, F16, BF16 or F64; got I32"}));
}

TEST_F(TrainingWeights, MayNotBePrograms) {
  EXPECT_TRUE(ends(train("--set weights.vision=" + testing::golden_path("weight_files/refused/os_system.pth")), 3,
                   {"os_system.pth: expected a pickle of tensors; got global posix.system", "nothing was executed"}));
  EXPECT_FALSE(std::filesystem::exists("executed"));
}

TEST_F(TrainingWeights, MustBeWhole) {
  EXPECT_TRUE(
      refused(good_.substr(0, good_.size() - 100),
              {"tensor 'norm.bias': data_offsets must be [begin, end] within the file's ", " bytes of data; got ["}));
  EXPECT_TRUE(refused("PK\x03\x04 this is a zip archive", {"expected a whole zip archive; got one without its end"}));
  EXPECT_TRUE(refused(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10),
                      {"header length must be 2 to 100000000 bytes and within the file; got 9223372036854775807 in a "
                       "file of 10 bytes"}));
  EXPECT_TRUE(refused(
      std::string("\0\0\0\0\x02\0\0\0{}", 10),
      {"header length must be 2 to 100000000 bytes and within the file; got 8589934592 in a file of 10 bytes"}));
}

}  // namespace
}  // namespace permafrost
