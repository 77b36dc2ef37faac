#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <thread>

#include "core/base/crc32c.h"
#include "data/datasets/sample_id.h"
#include "data/datasets/vqa_dataset.h"
#include "data/files/read_file.h"
#include "data/loader/loader.h"
#include "data/shards/pack.h"
#include "data/shards/shard_dataset.h"
#include "data/shards/shard_writer.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

namespace fs = std::filesystem;

std::vector<uint8_t> image_of(const Dataset& dataset, int64_t image) {
  std::vector<uint8_t> bytes;
  dataset.read_image(image, bytes);
  return bytes;
}

/// The same samples and images, in the same order.
void expect_same(const Dataset& a, const Dataset& b) {
  ASSERT_EQ(a.size(), b.size());
  for (int64_t i = 0; i < a.size(); ++i) {
    const Sample x = a.sample(i), y = b.sample(i);
    EXPECT_EQ(x.id, y.id) << i;
    EXPECT_EQ(x.name, y.name) << i;
    EXPECT_EQ(x.caption, y.caption) << i;
    EXPECT_EQ(x.question, y.question) << i;
    ASSERT_EQ(x.answers.size(), y.answers.size()) << i;
    for (size_t k = 0; k < x.answers.size(); ++k)
      EXPECT_TRUE(x.answers[k].text == y.answers[k].text && x.answers[k].score == y.answers[k].score) << i;
    EXPECT_EQ(a.image_id(x.image), b.image_id(y.image)) << i;
    EXPECT_EQ(a.short_image_name(x.image), b.short_image_name(y.image)) << i;
    EXPECT_EQ(image_of(a, x.image), image_of(b, y.image)) << i;
  }
}

/// Captions of little images, their files and a folder for their shards.
class Shards : public ::testing::Test {
 protected:
  Shards() : tokenizer_(small_tokenizer()) {
    files_ = std::make_unique<CaptionDataset>(CaptionDataset::load(
        write_small_dataset(folder_, {"the cat", " a dog ", "x", "the hat", "one", "two", "", "three"})));
    fs::create_directories(packed());
  }
  fs::path packed() const { return folder_.path() / "packed"; }
  /// Packs the captions into shards of one or two images.
  PackPlan pack(int64_t shard_bytes = 1000) const {
    const PackPlan plan = plan_pack(*files_, TextTask::kCaptions, &tokenizer_, shard_bytes);
    for (int64_t i = 0; i < plan.shards(); ++i) pack_shard(*files_, plan, i, packed());
    return plan;
  }
  std::unique_ptr<const ShardDataset> open() const { return open(packed()); }
  std::unique_ptr<const ShardDataset> open(const fs::path& path, TextTask task = TextTask::kCaptions) const {
    return ShardDataset::open({path, task, task == TextTask::kClasses ? "" : tokenizer_.hash(), tokenizer_.size()});
  }
  ::testing::AssertionResult refused(const std::vector<std::string>& parts) const {
    return throws_error([&] { open(); }, ErrorKind::kData, parts);
  }
  fs::path only_shard() const { return packed() / shard_file_name(0, 1); }
  /// Flips a bit of the byte at the start of `text` in a file.
  static void damage(const fs::path& path, std::string_view text) {
    std::string bytes = read_text_file(path);
    const size_t at = bytes.find(text);
    ASSERT_NE(at, std::string::npos);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    std::ofstream(path, std::ios::binary) << bytes;
  }
  /// Writes the only shard again, its index changed; checksums of the index are made anew.
  void rewrite(const std::function<void(ShardIndex&)>& change) const {
    const Hdf5File old = Hdf5File::open(only_shard());
    ShardIndex index = ShardIndex::read(old);
    const auto images = old.read<uint8_t>("images/bytes");
    const fs::path changed = packed() / "changed";
    change(index);
    Hdf5File file = Hdf5File::create(changed);
    index.write(file);
    file.write("images/bytes", std::span(images));
    file.commit();
    fs::rename(changed, only_shard());
  }

  DataFolder folder_;
  Tokenizer tokenizer_;
  std::unique_ptr<CaptionDataset> files_;
};

TEST_F(Shards, HoldWhatTheFilesHold) {
  const PackPlan plan = pack();
  EXPECT_GE(plan.shards(), 3);
  const auto shards = open();
  expect_same(*files_, *shards);
  EXPECT_TRUE(shards->image_name(0).ends_with(shard_file_name(0, plan.shards()))) << shards->image_name(0);
  for (int64_t i = 0; i < shards->size(); ++i) {
    const TextPieces packed = *shards->packed_text(i);
    const TextPieces made = text_pieces(tokenizer_, TextTask::kCaptions, files_->sample(i));
    EXPECT_TRUE(packed.prompt == made.prompt && packed.rest == made.rest && packed.scores == made.scores) << i;
  }
  const TextTable from_files(*files_, tokenizer_, {}), from_shards(*shards, tokenizer_, {});
  EXPECT_EQ(from_files.hash(), from_shards.hash());
  EXPECT_TRUE(throws_error([&] { shards->sample(8); }, ErrorKind::kInvalidArgument, {"0..7"}));
}

TEST_F(Shards, GiveTheSameMicroBatches) {
  pack();
  const auto shards = open();
  const TextTable from_files(*files_, tokenizer_, {}), from_shards(*shards, tokenizer_, {});
  LoaderConfig config;
  config.order = {8, 4, 2, 5, true};
  config.transform.size = 8;
  config.transform.training = true;
  Loader a(*files_, from_files, config), b(*shards, from_shards, config);
  for (int i = 0; i < 8; ++i) {
    const MicroBatch& x = a.next();
    const MicroBatch& y = b.next();
    EXPECT_TRUE(x.sample_ids == y.sample_ids && x.images == y.images && x.input_ids == y.input_ids) << i;
    EXPECT_EQ(x.labels, y.labels) << i;
  }
}

TEST_F(Shards, Questions) {
  const auto file = folder_.write("q.json", R"([
    {"question_id": 5, "img_id": "rgb", "sent": "What?", "label": {"the": 1, "a": 0.3}},
    {"question_id": "x", "img_id": "one_pixel", "sent": "Who?", "label": {}}, {"question_id": 7, "img_id": "rgb", "sent": "Why?"}])");
  fs::copy_file(golden_path("jpeg_png/one_pixel.jpg"), folder_.path() / "images/one_pixel.jpg");
  VqaDatasetConfig config;
  config.format = VqaFormat::kVlt5;
  config.questions = file;
  config.images = folder_.path() / "images";
  const VqaDataset questions = VqaDataset::load(config);
  write_small_vocabulary(folder_);
  const Tokenizer tokenizer = Tokenizer::load({folder_.path(), TokenizerRules::kOpt, {std::string(kAnswerToken)}});
  const PackPlan plan = plan_pack(questions, TextTask::kVqa, &tokenizer, 1 << 20);
  EXPECT_TRUE(pack_shard(questions, plan, 0, packed()));
  const auto shards = ShardDataset::open({packed(), TextTask::kVqa, tokenizer.hash(), tokenizer.size()});
  expect_same(questions, *shards);
  TextConfig text;
  text.task = TextTask::kVqa;
  text.needs_answers = false;
  EXPECT_EQ(TextTable(questions, tokenizer, text).hash(), TextTable(*shards, tokenizer, text).hash());
  EXPECT_TRUE(refused({"shards packed for data.task CAPTIONING are expected; got VQA"}));
}

TEST_F(Shards, ClassesAndAnnotations) {
  ShardWriter writer({packed(), TextTask::kCaptions, nullptr, 2, 0, 1, ""});
  const std::vector<uint8_t> image = image_of(*files_, 0);
  const std::vector<int32_t> first{3, 1}, second{kIgnoredLabel, 2};
  EXPECT_EQ(writer.add_image({70, "a", image, R"({"boxes": []})", first}), 0);
  EXPECT_EQ(writer.add_image({71, "b", image, "", second}), 1);
  EXPECT_TRUE(throws_error(
      [&] {
        writer.add_image({1, "c", image, "", {}});
      },
      ErrorKind::kInvalidArgument, {"2 classes per image are expected; got 0"}));
  writer.add_sample({1, 1, "the second", {}, {}, {}, {}});
  writer.add_sample({2, 0, "the first", {}, {}, {}, {}});
  EXPECT_TRUE(throws_error(
      [&] {
        writer.add_sample({3, 2, "", {}, {}, {}, {}});
      },
      ErrorKind::kInvalidArgument, {"an image below 2 is expected; got 2"}));
  EXPECT_TRUE(throws_error(
      [&] {
        writer.add_sample({3, 1, "", {}, {}, {}, {}}, 4);
      },
      ErrorKind::kInvalidArgument, {"positions of all samples or of none"}));
  writer.finish();
  const auto shards = open(packed(), TextTask::kClasses);
  EXPECT_EQ(shards->labels_per_image(), 2);
  EXPECT_EQ(shards->annotations(0), R"({"boxes": []})");
  EXPECT_TRUE(std::ranges::equal(shards->sample(1).classes, first));
  EXPECT_FALSE(shards->packed_text(0).has_value());  // no tokenizer: texts are encoded when they are read
  EXPECT_EQ(TextTable(*open(), tokenizer_, {}).ids(1, 0).joined(), caption_ids(tokenizer_, "the first"));

  const TextTable texts(*shards);
  EXPECT_EQ(texts.targets(0, 0), 1);
  EXPECT_EQ(texts.targets(1, 0), 2);
  LoaderConfig config;
  config.order = {2, 4, 4, 5, false};
  config.transform.size = 8;
  Loader loader(*shards, texts, config);
  const MicroBatch& batch = loader.next();
  EXPECT_EQ(batch.tokens, 1);
  const int32_t none = kIgnoredLabel;
  EXPECT_EQ(batch.classes, (std::vector<int32_t>{none, 2, 3, 1, none, none, none, none}));
}

TEST_F(Shards, BytesDependOnContentsAlone) {
  const PackPlan plan = pack(1 << 20);
  ASSERT_EQ(plan.shards(), 1);
  const std::string first = read_text_file(only_shard());
  fs::remove(only_shard());
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // times in HDF5 files are whole seconds
  EXPECT_TRUE(pack_shard(*files_, plan, 0, packed()));
  EXPECT_TRUE(read_text_file(only_shard()) == first);
}

TEST_F(Shards, PackingGoesOnWhereItStopped) {
  const PackPlan plan = pack();
  fs::remove(packed() / shard_file_name(1, plan.shards()));
  std::ofstream(packed() / (shard_file_name(1, plan.shards()) + ".tmp-1-0")) << "half a shard";
  for (int64_t i = 0; i < plan.shards(); ++i) EXPECT_EQ(pack_shard(*files_, plan, i, packed()), i == 1);
  expect_same(*files_, *open());
  prepare_pack_folder(plan, packed());
  EXPECT_FALSE(fs::exists(packed() / (shard_file_name(1, plan.shards()) + ".tmp-1-0")));

  const PackPlan coarser = plan_pack(*files_, TextTask::kCaptions, &tokenizer_, 1 << 20);
  EXPECT_TRUE(throws_error([&] { prepare_pack_folder(coarser, packed()); }, ErrorKind::kConfig,
                           {"data pack:", coarser.packed_from, plan.packed_from, "shard-0000"}));
  write_small_vocabulary(folder_);
  const Tokenizer other = Tokenizer::load({folder_.path(), TokenizerRules::kOpt, {"<x>"}});
  EXPECT_NE(plan_pack(*files_, TextTask::kCaptions, &other, 1000).packed_from, plan.packed_from);
}

TEST_F(Shards, DamagedImagesAreNamed) {
  pack(1 << 20);
  const std::vector<uint8_t> image = image_of(*files_, 2);
  damage(only_shard(), {reinterpret_cast<const char*>(image.data()) + 20, 30});
  const auto shards = open();  // images are looked at when they are read
  std::vector<uint8_t> bytes;
  shards->read_image(1, bytes);
  EXPECT_TRUE(
      throws_error([&] { shards->read_image(2, bytes); }, ErrorKind::kData,
                   {"got damaged bytes in image 12 (progressive.jpg) of sample 102", "shard-00000-of-00001.h5"}));
}

TEST_F(Shards, DamagedTextsAreNamed) {
  pack(1 << 20);
  damage(only_shard(), "the hat");
  EXPECT_TRUE(refused({"checksum (crc32c)", "damaged text in sample 103", "shard-00000-of-00001.h5"}));
}

TEST_F(Shards, DamageElsewhere) {
  pack(1 << 20);
  damage(only_shard(), "rgb.jpggrey.png");
  EXPECT_TRUE(refused({"an index whose checksum (crc32c) agrees"}));
}

TEST_F(Shards, AnyDamagedByteIsFoundOrHarmless) {
  pack(1 << 20);
  const std::string good = read_text_file(only_shard());
  int found = 0, harmless = 0;
  for (size_t at = 0; at < good.size(); at += 23) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    std::ofstream(only_shard(), std::ios::binary) << bad;
    try {
      const auto shards = open();
      expect_same(*files_, *shards);
      for (int64_t i = 0; i < shards->size(); ++i)
        EXPECT_EQ(shards->packed_text(i)->rest, text_pieces(tokenizer_, TextTask::kCaptions, files_->sample(i)).rest);
      ++harmless;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData) << at << ": " << error.what();
      ++found;
    }
    if (HasFailure()) FAIL() << "byte " << at << " of " << good.size();
  }
  std::cout << "shards: " << found << " damaged bytes found, " << harmless << " where nothing is stored\n";
  EXPECT_GT(found, harmless);
}

TEST_F(Shards, TruncatedFilesAndOtherFiles) {
  pack(1 << 20);
  const std::string bytes = read_text_file(only_shard());
  for (size_t kept : {bytes.size() - 1, bytes.size() / 2, size_t{100}, size_t{0}}) {
    std::ofstream(only_shard(), std::ios::binary) << bytes.substr(0, kept);
    EXPECT_TRUE(refused({"a complete HDF5 file is expected; got '", "shard-00000-of-00001.h5"})) << kept;
  }
  fs::remove(only_shard());
  EXPECT_TRUE(refused({"a folder with shard-", "got none"}));
  Hdf5File other = Hdf5File::create(only_shard());
  other.commit();
  EXPECT_TRUE(refused({"the attribute is expected", "name=format"}));
  other = Hdf5File::create(only_shard());
  other.write_attribute("format", "permafrost shard");
  other.write_attribute("version", int64_t{2});
  other.commit();
  EXPECT_TRUE(refused({"version 1 is expected; got 2; pack the data again"}));
  other = Hdf5File::create(only_shard());
  other.write_attribute("format", "something");
  other.commit();
  EXPECT_TRUE(refused({"the format 'permafrost shard' is expected; got 'something'"}));
}

TEST_F(Shards, ContentsThatContradictEachOther) {
  const PackPlan plan = pack(1 << 20);
  const std::string good = read_text_file(only_shard());
  const auto with = [&](const std::function<void(ShardIndex&)>& change, const std::vector<std::string>& parts) {
    std::ofstream(only_shard(), std::ios::binary) << good;
    rewrite(change);
    return refused(parts);
  };
  EXPECT_TRUE(with([](ShardIndex& i) { std::swap(i.image_offsets[1], i.image_offsets[2]); },
                   {"offsets from 0 to", "ascending order are expected in images/offsets"}));
  EXPECT_TRUE(with([](ShardIndex& i) { i.captions.offsets[1] = 1u << 20; }, {"samples/caption_offsets"}));
  EXPECT_TRUE(with([](ShardIndex& i) { i.piece_offsets[1] = 1u << 20; }, {"samples/piece_offsets"}));
  EXPECT_TRUE(with([](ShardIndex& i) { i.sample_images[3] = 5; }, {"images below 5 are expected; got 5"}));
  EXPECT_TRUE(
      with([](ShardIndex& i) { i.image_crc32c.pop_back(); }, {"5 elements are expected in images/crc32c; got 4"}));
  EXPECT_TRUE(with([](ShardIndex& i) { i.positions[1] = 0; }, {"each place in the dataset once"}));
  EXPECT_TRUE(with([](ShardIndex& i) { i.header.shards = 2; },
                   {"all 2 shards are expected; got none called shard-00000-of-00002.h5"}));
  EXPECT_TRUE(with([](ShardIndex& i) { i.header.shard = 1; }, {"got 1 of 1"}));
  EXPECT_TRUE(with([](ShardIndex& i) { i.header.tokenizer_sha256 = "abc"; },
                   {"SHA-256 " + tokenizer_.hash(), "another one's (abc)", "pack the data again"}));
  const auto sign_last = [](ShardIndex& i) {
    const auto last = static_cast<int64_t>(i.text_crc32c.size()) - 1;
    i.text_crc32c.back() = crc32c(i.text_record(last, i.first_pieces()[static_cast<size_t>(last)]));
  };
  EXPECT_TRUE(with(
      [&](ShardIndex& i) {
        i.sample_ids.back() = uint64_t{1} << kSampleIdBits;
        sign_last(i);
      },
      {"sample ids below 2^56 are expected; got 72057594037927936", "[file=" + only_shard().string() + "]"}));
  for (const int32_t id : {-1, static_cast<int32_t>(tokenizer_.size())})
    EXPECT_TRUE(with(
        [&](ShardIndex& i) {
          i.token_ids.back() = id;
          sign_last(i);
        },
        {concat("token ids below the ", tokenizer_.size(), " of the tokenizer are expected; got ", id, " in sample "),
         only_shard().string()}));
  std::ofstream(only_shard(), std::ios::binary) << good;
  expect_same(*files_, *open(only_shard()));
}

TEST_F(Shards, DatasetsThatAreMissing) {
  pack(1 << 20);
  Hdf5File bare = Hdf5File::create(only_shard());
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"format", "permafrost shard"}, {"task", "CAPTIONING"}, {"tokenizer_sha256", ""}, {"packed_from", ""}})
    bare.write_attribute(name, value);
  for (const auto& [name, value] : std::vector<std::pair<std::string, int64_t>>{
           {"version", 1}, {"labels_per_image", 0}, {"shard", 0}, {"shards", 1}})
    bare.write_attribute(name, value);
  bare.commit();
  EXPECT_TRUE(refused({"the dataset is expected", "name=images/offsets"}));
}

TEST_F(Shards, ShardsOfTwoDatasets) {
  const PackPlan plan = pack();
  const DataFolder other;
  const CaptionDataset more = CaptionDataset::load(write_small_dataset(other, {"1", "2", "3", "4", "5"}));
  const PackPlan second = plan_pack(more, TextTask::kCaptions, &tokenizer_, 1000);
  ASSERT_EQ(second.shards(), plan.shards());
  fs::remove(packed() / shard_file_name(1, plan.shards()));
  EXPECT_TRUE(refused({"shards are expected; got none called " + shard_file_name(1, plan.shards())}));
  pack_shard(more, second, 1, packed());
  EXPECT_TRUE(refused({"shards of one dataset are expected", "packed from other data"}));
}

}  // namespace
}  // namespace permafrost::testing
