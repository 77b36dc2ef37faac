// Datasets of every kind through the program: packing, training from shards, on questions, on mixes.
#include "core/base/check.h"
#include "tests/launch/vqa_fixture.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

TEST_F(VqaTraining, FromShardsIsTheSameAsFromFiles) {
  ASSERT_TRUE(ends(pack("captions", "--shard-mb 0.002"), 0, {"packing 24 samples and 12 images", " kept"}));
  EXPECT_GT(std::distance(fs::directory_iterator(dir("captions")), fs::directory_iterator()), 2);
  ASSERT_TRUE(ends(train("--set data.transform=TRAIN", "files"), 0, {"step 4/4"}));
  ASSERT_TRUE(ends(train("--set data.transform=TRAIN" + shards("captions"), "shards"), 0, {"24 samples, 12 images"}));
  EXPECT_EQ(losses("files"), losses("shards"));
  EXPECT_EQ(adapter_hash("files"), adapter_hash("shards"));
  const Outcome inspected =
      run("data inspect " + config() + " --set data.root=" + photos().string() + shards("captions") + " --index 1");
  EXPECT_TRUE(ends(inspected, 0, {"sample 1\n", " in " + dir("captions").string() + "/shard-", "caption "}));
  // Shards hold nothing that depends on where they are.
  fs::rename(dir("captions"), dir("moved"));
  ASSERT_TRUE(ends(train("--set data.transform=TRAIN" + shards("moved"), "again"), 0, {}));
  EXPECT_EQ(losses("files"), losses("again"));
}

TEST_F(VqaTraining, PackingGoesOnAndRefusesWhatIsNotItsOwn) {
  ASSERT_TRUE(ends(pack("packed", "--shard-mb 0.002"), 0, {" 0 kept"}));
  fs::path first;
  for (const auto& entry : fs::directory_iterator(dir("packed")))
    if (first.empty() || entry.path() < first) first = entry.path();
  const std::string bytes = read_file(first);
  fs::remove(first);
  write_file(first.string() + ".tmp-17-0", "a part");
  ASSERT_TRUE(ends(pack("packed", "--shard-mb 0.002"), 0, {": 1 shards written, "}));
  EXPECT_TRUE(read_file(first) == bytes);
  EXPECT_TRUE(ends(pack("packed", "--shard-mb 1"), 2, {"data pack: a folder that is new or was packed from the same"}));
  Json vocabulary = parse_json(read_file(photos() / "tokenizer" / "vocab.json"));
  vocabulary["another"] = vocabulary.size();
  fs::copy(photos() / "tokenizer", photos() / "other");
  write_file(photos() / "other" / "vocab.json", json_text(vocabulary));
  EXPECT_TRUE(ends(pack("packed", "--shard-mb 0.002 --set data.tokenizer.root=other"), 2, {"data pack: a folder"}));
  EXPECT_TRUE(ends(pack("x", "--set 'data.mix+={weight: 2}'"), 2,
                   {"data pack: one dataset by itself is expected; got data.mix with 1"}));
  EXPECT_TRUE(ends(run("data pack " + config()), 2, {"--out is required"}));
  EXPECT_TRUE(ends(train("--set data.tokenizer.root=other" + shards("packed"), "run"), 3,
                   {"shards: texts packed with the tokenizer of this run (SHA-256 ", "got another one's ("}));
  EXPECT_FALSE(fs::exists(first.string() + ".tmp-17-0"));
  EXPECT_TRUE(ends(pack("full", "", false, "bash -c 'ulimit -S -f 10; exec \"$@\"' --"), 4,
                   {"cannot write ", "full/shard-00000-of-00001.h5", "File too large"}));
  EXPECT_TRUE(fs::is_empty(dir("full")));
  EXPECT_TRUE(ends(pack("/proc/none", "", true), 4, {"data pack: cannot make the folder /proc/none"}));
}

TEST_F(VqaTraining, PacksEvaluationDataWhereverTheOthersAre) {
  const std::string evaluation =
      "data pack " + config() + " --evaluation --out " + dir("packed").string() + " --set evaluation.data.root=";
  ASSERT_TRUE(ends(run(evaluation + photos().string()), 0, {"packing 24 samples and 12 images"}));
  ASSERT_EQ(pack("same").code, 0);
  const std::string shard = "shard-00000-of-00001.h5";
  EXPECT_TRUE(read_file(dir("packed") / shard) == read_file(dir("same") / shard));
  EXPECT_TRUE(ends(run(evaluation), 2, {"evaluation.data.root: expected"}));
  EXPECT_TRUE(ends(run(evaluation + photos().string() + " --set 'evaluation.data.mix+={weight: 2}'"), 2,
                   {"data pack: one dataset by itself is expected; got evaluation.data.mix with 1"}));
}

TEST_F(VqaTraining, NamesDamagedShards) {
  ASSERT_EQ(pack("packed").code, 0);
  const fs::path file = dir("packed") / "shard-00000-of-00001.h5";
  const std::string good = read_file(file);
  const std::string image = read_file(photos() / "images" / first_image());
  std::string bad = good;
  bad[bad.find(image) + image.size() / 2] ^= 1;
  write_file(file, bad);
  EXPECT_TRUE(ends(train(shards("packed"), "a"), 3,
                   {"shards: an image whose checksum (crc32c) agrees is expected; got damaged bytes in image ",
                    "(" + first_image() + ") of sample ", "[file=" + file.string() + "]"}));
  EXPECT_TRUE(ends(train("--set data.image_policy=SKIP" + shards("packed"), "b"), 0, {"skipped_samples: "}));
  bad = good;
  const std::string caption = captions()["annotations"][3]["caption"];
  bad[bad.find(caption)] ^= 1;
  write_file(file, bad);
  EXPECT_TRUE(ends(train(shards("packed"), "c"), 3, {"got damaged text in sample 3 [file=" + file.string() + "]"}));
  write_file(file, good.substr(0, good.size() / 2));
  EXPECT_TRUE(ends(train(shards("packed"), "d"), 3, {"a complete HDF5 file is expected; got '"}));
  EXPECT_TRUE(ends(train(" --set data.format=SHARDS --set data.shards=" + dir("none").string(), "e"), 3,
                   {"shard: a complete HDF5 file is expected"}));
}

TEST_F(VqaTraining, OnQuestions) {
  write_questions();
  ASSERT_TRUE(ends(train(questions(), "all"), 0, {"data: 12 samples, 12 images", "step 4/4"}));
  ASSERT_TRUE(ends(train(questions() + " --set loss.tokens=ANSWER", "answers"), 0, {"step 4/4"}));
  EXPECT_NE(losses("all"), losses("answers"));
  ASSERT_TRUE(ends(pack("packed", questions()), 0, {"packing 12 samples"}));
  ASSERT_TRUE(ends(train(" --set data.task=VQA --set loss.tokens=ANSWER" + shards("packed"), "shards"), 0, {}));
  EXPECT_EQ(losses("answers"), losses("shards"));
  const std::string inspect = "data inspect " + config() + " --set data.root=" + photos().string() + questions();
  EXPECT_TRUE(ends(run(inspect + " --index 2"), 0,
                   {"question what is in image 2", "answer thing 2 (1)", "answer other (0.3)", "</a>"}));
}

TEST_F(VqaTraining, QuestionsWithoutAnswersCannotBeTrainedOn) {
  write_questions(5);
  EXPECT_TRUE(ends(train(questions()), 3,
                   {"text: training needs at least one answer to every question; got none in sample q5 (\"what is in "
                    "image 5\")"}));
  EXPECT_TRUE(
      ends(run("data inspect " + config() + " --set data.root=" + photos().string() + questions() + " --index 5"), 0,
           {"sample q5\n", "</a>"}));
}

TEST_F(VqaTraining, OnAShare) {
  EXPECT_TRUE(ends(train("--set data.train_fraction=0.25", "a"), 0, {"data: 6 samples"}));
  EXPECT_TRUE(ends(train("--set data.train_first=5", "b"), 0, {"data: 5 samples"}));
  EXPECT_TRUE(ends(train("--set data.train_first=25", "c"), 2,
                   {"data.train_first: at most the 24 samples of the dataset are expected; got 25"}));
  EXPECT_TRUE(
      ends(train("--set data.train_fraction=0", "d"), 2, {"data.train_fraction: expected above 0 to 1; got 0"}));
}

TEST_F(VqaTraining, OnAMix) {
  ASSERT_EQ(pack("packed").code, 0);
  const std::string mix =
      " --set 'data.mix+={weight: 3 data {train_first: 6}}' --set 'data.mix+={data {format: SHARDS "
      "shards: \"" +
      dir("packed").string() + "\"}}'";
  ASSERT_TRUE(ends(train(mix, "mix"), 0, {"data: 30 samples, 24 images", "step 4/4"}));
  EXPECT_EQ(losses("mix").size(), 4u);
  EXPECT_TRUE(ends(train(" --set 'data.mix+={weight: 0}'", "zero"), 2,
                   {"data.mix[0].weight: expected a finite number above 0; got 0"}));
}

}  // namespace
}  // namespace permafrost
