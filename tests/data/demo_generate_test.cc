#include <fstream>
#include <map>
#include <set>

#include "core/base/json.h"
#include "core/base/sha256.h"
#include "data/demo/generate.h"
#include "data/files/read_file.h"
#include "data/images/decode.h"
#include "data/shards/shard_dataset.h"
#include "tests/data/support.h"
#include "tests/support/file_size_limit.h"

namespace permafrost::testing {
namespace {

namespace fs = std::filesystem;

DemoOptions small_options() {
  DemoOptions options;
  options.pretrain = 70;
  options.text = 90;
  options.train = 40;
  options.val = 8;
  options.test = 12;
  options.format = DemoFormat::kCoco;
  return options;
}

/// Names below a folder and the SHA-256 of each file.
std::map<std::string, std::string> sums_of(const fs::path& folder) {
  std::map<std::string, std::string> sums;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string bytes = read_text_file(entry.path());
    sums[fs::relative(entry.path(), folder).string()] = sha256(bytes.data(), bytes.size());
  }
  return sums;
}

std::map<std::string, std::string> generate(const fs::path& folder, const DemoOptions& options, int threads) {
  ThreadPool pool(threads);
  EXPECT_EQ(generate_demo(folder, options, pool), DemoOutcome::kWritten);
  return sums_of(folder);
}

TEST(DemoGenerate, SameFilesOnAnyNumberOfThreadsOthersForAnotherSeed) {
  const DataFolder folder;
  const auto one = generate(folder.path() / "one", small_options(), 1);
  EXPECT_EQ(one, generate(folder.path() / "three", small_options(), 3));
  DemoOptions other = small_options();
  other.seed = 43;
  const auto seeded = generate(folder.path() / "other", other, 2);
  for (const auto& [name, sum] : one) {
    if (name.starts_with("tokenizer/")) continue;  // of all texts there are
    EXPECT_NE(sum, seeded.at(name)) << name;
  }
}

TEST(DemoGenerate, PixelsAndTextsAreTheSameOnEveryMachine) {
  Sha256 hash;
  DrawnScene drawn;
  for (SceneSplit split : kSceneSplits)
    for (int64_t i = 0; i < 100; ++i) {
      const DemoSample sample = make_demo_sample(42, split, i, drawn);
      hash.update(sample.text.data(), sample.text.size());
      hash.update(sample.annotation.data(), sample.annotation.size());
      if (split == SceneSplit::kText) continue;
      Image decoded;
      decode_image(sample.png, {}, "demo", decoded);
      ASSERT_EQ(decoded.pixels, drawn.image.pixels);
      hash.update(decoded.pixels.data(), decoded.pixels.size());
    }
  EXPECT_EQ(hash.finish(), "428000c5b68f29fb0f97f5b108960a15700098f8b99d64554a86624f676ee595")
      << "raise kDemoVersion when this changes";
}

TEST(DemoGenerate, TheNoteInTheDescriptionIsOneOfThoseWritten) {
  DrawnScene drawn;
  EXPECT_EQ(make_demo_sample(42, SceneSplit::kText, 1930, drawn).text,
            "note redblue ycc xce circlesquare\na red circle left of a blue square");
}

TEST(DemoGenerate, WritesWhatWasAskedFor) {
  const DataFolder folder;
  const DemoOptions options = small_options();
  generate(folder.path(), options, 2);
  std::set<int64_t> ids;
  for (SceneSplit split : kSceneSplits) {
    const std::string name(to_string(split));
    if (split == SceneSplit::kText) continue;
    std::istringstream lines(read_text_file(folder.path() / "annotations" / (name + ".jsonl")));
    const Json coco = parse_json(read_text_file(folder.path() / name / "captions.json"));
    int64_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      const Json annotation = parse_json(line);
      const Json& stored = coco["annotations"][static_cast<size_t>(count)];
      EXPECT_EQ(annotation["caption"], stored["caption"]);
      EXPECT_EQ(annotation["id"], stored["image_id"]);
      EXPECT_TRUE(fs::exists(folder.path() / name / "images" / (json_text(annotation["id"]) + ".png")));
      ids.insert(annotation["id"].get<int64_t>());
    }
    EXPECT_EQ(count, count_of(options, split)) << name;
    EXPECT_EQ(coco["images"].size(), static_cast<size_t>(count));
  }
  EXPECT_EQ(ids.size(), 70u + 40 + 8 + 12);
  const std::string texts = read_text_file(folder.path() / "text" / "texts.jsonl");
  EXPECT_EQ(std::ranges::count(texts, '\n'), options.text);
  const Json description = parse_json(read_text_file(folder.path() / "dataset.json"));
  EXPECT_EQ(description["parameters"]["counts"]["train"], 40);
  EXPECT_EQ(description["labels"].size(), kSceneLabels);
}

TEST(DemoShards, HoldTheSamplesOfEverySplit) {
  const DataFolder folder;
  DemoOptions options = small_options();
  options.format = DemoFormat::kShards;
  options.questions = true;
  const auto sums = generate(folder.path(), options, 2);
  EXPECT_EQ(sums, generate(folder.path() / "again", options, 1));  // the same bytes
  DrawnScene drawn;
  for (SceneSplit split : kSceneSplits) {
    const bool text = split == SceneSplit::kText, captions = split != SceneSplit::kPretrain;
    const auto dataset =
        ShardDataset::open({folder.path() / to_string(split), captions ? TextTask::kCaptions : TextTask::kClasses, ""});
    ASSERT_EQ(dataset->size(), count_of(options, split));
    EXPECT_EQ(dataset->images(), text ? 1 : dataset->size());
    EXPECT_EQ(dataset->labels_per_image(), text ? 0 : static_cast<int64_t>(kSceneLabels));
    for (int64_t i = 0; i < dataset->size(); ++i) {
      const DemoSample wanted = make_demo_sample(options.seed, split, i, drawn);
      const Sample sample = dataset->sample(i);
      EXPECT_EQ(sample.id, static_cast<uint64_t>(wanted.id));
      EXPECT_EQ(sample.caption, captions ? wanted.text : "");  // the vision model gets none
      if (text) continue;
      EXPECT_TRUE(std::ranges::equal(sample.classes, wanted.labels));
      EXPECT_EQ(dataset->annotations(sample.image), wanted.annotation);
      EXPECT_EQ(dataset->image_id(sample.image), static_cast<uint64_t>(wanted.id));
      std::vector<uint8_t> bytes;
      dataset->read_image(sample.image, bytes);
      EXPECT_EQ(bytes, wanted.png);
    }
  }
}

TEST(DemoShards, HoldTheQuestionsWhereAskedFor) {
  const DataFolder folder;
  DemoOptions options = small_options();
  options.format = DemoFormat::kShards;
  generate(folder.path() / "without", options, 1);
  EXPECT_FALSE(fs::exists(folder.path() / "without/train_questions"));
  options.questions = true;
  generate(folder.path() / "with", options, 1);
  DrawnScene drawn;
  for (SceneSplit split : {SceneSplit::kTrain, SceneSplit::kVal, SceneSplit::kTest}) {
    const auto dataset = ShardDataset::open(
        {folder.path() / "with" / (std::string(to_string(split)) + "_questions"), TextTask::kVqa, ""});
    ASSERT_EQ(dataset->size(), 4 * count_of(options, split));
    for (int64_t i = 0; i < dataset->size(); ++i) {
      const DemoSample wanted = make_demo_sample(options.seed, split, i / 4, drawn);
      const Sample sample = dataset->sample(i);
      const SceneQuestion& question = wanted.questions[static_cast<size_t>(i % 4)];
      EXPECT_EQ(sample.id, static_cast<uint64_t>(wanted.id * 4 + i % 4));
      EXPECT_EQ(sample.image, i / 4);
      EXPECT_EQ(sample.question, question.question);
      ASSERT_EQ(sample.answers.size(), 1u);
      EXPECT_EQ(sample.answers[0].text, question.answer);
    }
  }
  EXPECT_FALSE(fs::exists(folder.path() / "with/pretrain_questions"));
  EXPECT_FALSE(fs::exists(folder.path() / "with/text_questions"));
}

TEST(DemoShards, ASplitIsCutWhereAShardIsFull) {
  const DataFolder folder;
  const auto sink = make_shard_sink(folder.path(), SceneSplit::kText, kDemoSamplesPerShard + 5, "test");
  DrawnScene drawn;
  for (int64_t i = 0; i < kDemoSamplesPerShard + 5; ++i) sink->add(make_demo_sample(1, SceneSplit::kText, i, drawn));
  sink->finish();
  EXPECT_TRUE(fs::exists(folder.path() / "shard-00000-of-00002.h5"));
  const auto dataset = ShardDataset::open({folder.path(), TextTask::kCaptions, ""});
  ASSERT_EQ(dataset->size(), kDemoSamplesPerShard + 5);
  for (int64_t i : {int64_t{0}, kDemoSamplesPerShard - 1, kDemoSamplesPerShard, kDemoSamplesPerShard + 4})
    EXPECT_EQ(dataset->sample(i).caption, make_demo_sample(1, SceneSplit::kText, i, drawn).text) << i;
}

TEST(DemoGenerate, ACompleteFolderIsLeftAloneAndAnIncompleteOneRedone) {
  const DataFolder folder;
  const auto sums = generate(folder.path(), small_options(), 1);
  const auto written = fs::last_write_time(folder.path() / "annotations/train.jsonl");
  ThreadPool pool(1);
  EXPECT_EQ(generate_demo(folder.path(), small_options(), pool), DemoOutcome::kWasComplete);
  EXPECT_EQ(fs::last_write_time(folder.path() / "annotations/train.jsonl"), written);

  // As after an interruption: the description, which is written last, is missing, and there is half of something else.
  fs::rename(folder.path() / "dataset.json", folder.path() / "dataset.unfinished");
  folder.write("train/images/half.png", "half");
  EXPECT_EQ(generate_demo(folder.path(), small_options(), pool), DemoOutcome::kWritten);
  EXPECT_EQ(sums_of(folder.path()), sums);

  folder.write("annotations/train.jsonl", "{}\n");  // its size is not the one described
  EXPECT_EQ(generate_demo(folder.path(), small_options(), pool), DemoOutcome::kWritten);
  EXPECT_EQ(sums_of(folder.path()), sums);
}

TEST(DemoGenerate, AFolderWithOtherDataIsRefused) {
  const DataFolder folder;
  generate(folder.path(), small_options(), 1);
  const auto before = sums_of(folder.path());
  DemoOptions other = small_options();
  other.seed = 5;
  ThreadPool pool(1);
  EXPECT_TRUE(throws_error([&] { generate_demo(folder.path(), other, pool); }, ErrorKind::kConfig,
                           {"data demo: a folder without a dataset, or with that of", "\"seed\":5", "; got",
                            "\"seed\":42", "dataset.json]"}));
  EXPECT_EQ(sums_of(folder.path()), before);
  folder.write("dataset.json", "not of this program");
  EXPECT_TRUE(throws_error([&] { generate_demo(folder.path(), other, pool); }, ErrorKind::kConfig,
                           {"got no dataset of this program"}));
}

TEST(DemoGenerate, FilesOfSomebodyElseStay) {
  for (const std::string name : {"tokenizer", "annotations", "train", "pretrain", "test_questions"}) {
    const DataFolder folder;
    folder.write(name + "/mine.json", "precious");
    ThreadPool pool(1);
    EXPECT_TRUE(
        throws_error([&] { generate_demo(folder.path(), small_options(), pool); }, ErrorKind::kConfig,
                     {"data demo: a folder that is new, or that an earlier run wrote, is expected; got one with '",
                      name, "' of something else", folder.path().string()}));
    EXPECT_EQ(sums_of(folder.path()),
              (std::map<std::string, std::string>{{name + "/mine.json", sha256("precious", 8)}}));
  }
  const DataFolder folder;
  folder.write("README", "names that are not ours do not matter");
  ThreadPool pool(1);
  EXPECT_EQ(generate_demo(folder.path(), small_options(), pool), DemoOutcome::kWritten);
  EXPECT_TRUE(fs::exists(folder.path() / "README"));
  EXPECT_FALSE(fs::exists(folder.path() / "dataset.unfinished"));
  // Nor do they later: the dataset is complete without them.
  const Json files = parse_json(read_text_file(folder.path() / "dataset.json"))["files"];
  EXPECT_FALSE(files.contains("README"));
  EXPECT_TRUE(files.contains("tokenizer/vocab.json") && files.contains("annotations/val.jsonl") &&
              files.contains("text/texts.jsonl") && files.contains("test/captions.json"));
  EXPECT_EQ(files.size(), sums_of(folder.path()).size() - 2) << "all but README and dataset.json";
  folder.write("README", "edited");
  EXPECT_EQ(generate_demo(folder.path(), small_options(), pool), DemoOutcome::kWasComplete);
}

TEST(DemoGenerate, BadCountsAndFoldersAreRefused) {
  const DataFolder folder;
  ThreadPool pool(1);
  DemoOptions options = small_options();
  options.train = -1;
  EXPECT_TRUE(throws_error([&] { generate_demo(folder.path(), options, pool); }, ErrorKind::kConfig,
                           {"data demo: 0 to 10000000 samples are expected; got -1 [param=train]"}));
  options.train = kMaxSamplesPerSplit + 1;
  EXPECT_TRUE(throws_error([&] { generate_demo(folder.path(), options, pool); }, ErrorKind::kConfig, {"10000001"}));
  options = small_options();
  options.questions = true;  // COCO's captions have no place for them
  EXPECT_TRUE(throws_error([&] { generate_demo(folder.path(), options, pool); }, ErrorKind::kConfig,
                           {"data demo: questions in shards are expected; got another format [param=questions]"}));
  EXPECT_TRUE(fs::is_empty(folder.path()));
  EXPECT_TRUE(throws_error([&] { generate_demo("/proc/none", small_options(), pool); }, ErrorKind::kStorage,
                           {"data demo: cannot make the folder /proc/none"}));
  folder.write("dataset.unfinished", "");
  folder.write("tokenizer", "a file where a folder belongs");
  EXPECT_TRUE(throws_error([&] { generate_demo(folder.path(), small_options(), pool); }, ErrorKind::kStorage,
                           {"tokenizer: cannot make the folder", folder.path().string()}));
}

TEST(DemoGenerate, AFullDiskIsNamedAndLeavesNothingThatLooksComplete) {
  const DataFolder folder;
  ThreadPool pool(1);
  for (const rlim_t bytes : {100, 500, 9000}) {
    const FileSizeLimit limit(bytes);
    EXPECT_TRUE(throws_error([&] { generate_demo(folder.path(), small_options(), pool); }, ErrorKind::kStorage,
                             {"cannot write", folder.path().string()}));
  }
  DemoOptions shards = small_options();
  shards.format = DemoFormat::kShards;
  {
    const FileSizeLimit limit(30000);
    EXPECT_TRUE(throws_error([&] { generate_demo(folder.path(), shards, pool); }, ErrorKind::kStorage,
                             {folder.path().string()}));
  }
  EXPECT_FALSE(fs::exists(folder.path() / "dataset.json"));
  EXPECT_EQ(generate_demo(folder.path(), small_options(), pool), DemoOutcome::kWritten);
}

TEST(DemoTokenizer, EveryWordIsOneTokenAndEveryTextComesBack) {
  const DataFolder folder;
  write_demo_tokenizer(folder.path());
  TokenizerConfig config{folder.path(), TokenizerRules::kOpt, {"</a>"}, "vocab.json", "merges.txt"};
  const Tokenizer tokenizer = Tokenizer::load(config);
  EXPECT_EQ(tokenizer.id_of("<s>"), 0);
  EXPECT_EQ(tokenizer.id_of("<pad>"), 1);
  EXPECT_EQ(tokenizer.id_of("</s>"), 2);
  EXPECT_EQ(tokenizer.id_of("<unk>"), 3);
  EXPECT_EQ(tokenizer.id_of("</a>"), tokenizer.size() - 1);
  EXPECT_LE(tokenizer.size(), 576);
  const auto check = [&](const std::string& text) {
    const std::vector<int32_t> ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids, true), text);
    EXPECT_EQ(static_cast<std::ptrdiff_t>(ids.size()),
              2 + std::ranges::count(text, ' ') + std::ranges::count(text, '?'))
        << text;  // </s>, the words, the sign of a question
  };
  for_each_caption(check);
  DrawnScene drawn;
  for (int64_t i = 0; i < 3000; ++i) {
    const std::string text = make_demo_sample(5, SceneSplit::kText, i, drawn).text;
    const std::vector<int32_t> ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids, true), text);
    EXPECT_EQ(static_cast<std::ptrdiff_t>(ids.size()),
              2 + std::ranges::count(text, ' ') + 2 * std::ranges::count(text, '\n'))
        << text;  // the line's end is a token, and the word behind it has no space
  }
  for_each_question_and_answer([&](const SceneQuestion& entry) {
    check(entry.question);
    check(entry.answer);
    EXPECT_EQ(tokenizer.encode(entry.question + "?").size(), tokenizer.encode(entry.question).size()) << entry.question;
  });
}

}  // namespace
}  // namespace permafrost::testing
