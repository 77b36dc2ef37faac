#include "data/loader/loader.h"

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>

#include "data/loader/describe.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

using Ids = std::vector<int32_t>;

/// A dataset of little images, its texts, and a loader over it.
class LoaderTest : public ::testing::Test {
 protected:
  void use(const std::vector<std::string>& captions, MissingImages missing = MissingImages::kFail) {
    dataset_config_ = write_small_dataset(folder_, captions);
    dataset_config_.missing_images = missing;
    reload();
  }
  void reload() {
    dataset_ = std::make_unique<CaptionDataset>(CaptionDataset::load(dataset_config_));
    texts_ = std::make_unique<TextTable>(*dataset_, tokenizer_, text_config_);
    config_.order = {texts_->size(), 4, 2, 5, true};
    config_.transform.size = 8;
  }
  std::unique_ptr<Loader> loader() { return std::make_unique<Loader>(*dataset_, *texts_, config_); }

  DataFolder folder_;
  const Tokenizer tokenizer_ = small_tokenizer();
  CaptionDatasetConfig dataset_config_;
  TextConfig text_config_;
  LoaderConfig config_;
  std::unique_ptr<CaptionDataset> dataset_;
  std::unique_ptr<TextTable> texts_;
};

const std::vector<std::string> kCaptions{"the cat", " a dog ", "x", "the hat and the mat", "one", "two", "three"};

TEST_F(LoaderTest, TextFormat) {
  const auto id = [&](std::string_view token) { return tokenizer_.id_of(token); };
  EXPECT_EQ(caption_ids(tokenizer_, " \n he the\t"), (Ids{2, id("he"), id(" the"), 2}));
  EXPECT_EQ(caption_ids(tokenizer_, "h</s>h</s>"), (Ids{2, id("h"), id("h"), 2}));  // one end token, at the end
  EXPECT_EQ(caption_ids(tokenizer_, "  "), (Ids{2, 2}));
}

TEST_F(LoaderTest, TextsOverTheLength) {
  text_config_.max_tokens = 8;
  EXPECT_TRUE(
      throws_error([&] { use(kCaptions); }, ErrorKind::kData,
                   {"at most 8 tokens", "got 16 in sample 103", "the hat and the mat", "1 of 7", "max_text_tokens"}));
  text_config_.long_text = LongTextPolicy::kTruncate;
  reload();
  EXPECT_EQ(texts_->size(), 7);
  EXPECT_EQ(texts_->truncated(), 1);
  EXPECT_EQ(texts_->longest(), 8);
  const auto whole = caption_ids(tokenizer_, kCaptions[3]);
  EXPECT_TRUE(std::ranges::equal(texts_->ids(3, 0).joined(), std::span(whole).first(8)));
  text_config_.long_text = LongTextPolicy::kSkip;
  reload();
  EXPECT_EQ(texts_->size(), 6);
  EXPECT_EQ(texts_->skipped(), 1);
  EXPECT_EQ(texts_->dataset_index(3), 4);
  text_config_.max_tokens = 2;
  EXPECT_TRUE(throws_error([&] { reload(); }, ErrorKind::kData, {"at least one text", "none among 7"}));
}

TEST_F(LoaderTest, TextTableIsIndependentOfThreads) {
  std::vector<std::string> captions;
  for (int i = 0; i < 3000; ++i) captions.push_back(std::string(static_cast<size_t>(i % 11), 'h') + " the");
  use(captions);
  text_config_.threads = 3;
  const TextTable other(*dataset_, tokenizer_, text_config_);
  ASSERT_EQ(other.size(), texts_->size());
  for (int64_t i = 0; i < other.size(); ++i) EXPECT_TRUE(other.ids(i, 0).joined() == texts_->ids(i, 0).joined()) << i;
}

TEST_F(LoaderTest, BucketsHoldTheLongestText) {
  use(kCaptions);
  const BatchIndex exact(*texts_, config_.order, {});
  const BatchIndex bucketed(*texts_, config_.order, length_buckets(4, 16));
  EXPECT_EQ(bucketed.buckets(), (std::vector<int64_t>{4, 8, 12, 16}));
  std::vector<int64_t> rows;
  for (int64_t m = 0; m < 3 * exact.order().micro_batches_per_epoch(); ++m) {
    exact.members(m, rows);
    int64_t longest = 1;
    for (int64_t row : rows)
      if (row != BatchOrder::kPadding) longest = std::max(longest, texts_->length(row, 0));
    EXPECT_EQ(exact.padded_tokens(m), longest);
    EXPECT_EQ(bucketed.padded_tokens(m), (longest + 3) / 4 * 4);
  }
  EXPECT_TRUE(throws_error(
      [&] {
        BatchIndex(*texts_, config_.order, {8, 15});
      },
      ErrorKind::kConfig, {"longest text of 16 tokens; got 15", "length_buckets"}));
  EXPECT_TRUE(throws_error(
      [&] {
        BatchIndex(*texts_, config_.order, {16, 16});
      },
      ErrorKind::kConfig, {"ascending", "16 in place 1"}));
  EXPECT_TRUE(throws_error([&] { exact.epoch_of(-1); }, ErrorKind::kInvalidArgument, {"got -1"}));
}

TEST_F(LoaderTest, BatchesByHand) {
  use(kCaptions);
  config_.order.shuffle = false;
  config_.buckets = {16};
  const auto loader = this->loader();
  for (int64_t m = 0; m < 8; ++m) {  // two epochs of 7 samples in 2 steps of 2 micro-batches of 2
    const MicroBatch& batch = loader->next();
    EXPECT_EQ(batch.number, m);
    EXPECT_EQ(batch.epoch, m / 4);
    EXPECT_EQ(batch.tokens, 16);
    int64_t targets = 0, samples = 0;
    for (int64_t row = 0; row < 2; ++row) {
      const int64_t sample = m % 4 * 2 + row;
      const auto at = static_cast<size_t>(row);
      const bool padding = sample >= 7;
      const Ids ids = padding ? Ids{2} : caption_ids(tokenizer_, kCaptions[static_cast<size_t>(sample)]);
      EXPECT_EQ(batch.sample_ids[at], padding ? kPaddingSample : static_cast<uint64_t>(100 + sample));
      EXPECT_EQ(batch.weights[at], padding ? 0.0f : 1.0f);
      EXPECT_EQ(batch.key_lengths[at], static_cast<int32_t>(ids.size()));
      for (size_t t = 0; t < 16; ++t) {
        const size_t i = at * 16 + t;
        EXPECT_EQ(batch.input_ids[i], t < ids.size() ? ids[t] : 1) << m << ' ' << row << ' ' << t;
        EXPECT_EQ(batch.labels[i], t > 0 && t < ids.size() ? ids[t] : kIgnoredLabel) << m << ' ' << row << ' ' << t;
      }
      samples += !padding;
      targets += static_cast<int64_t>(ids.size()) - 1;
      const auto image = batch.images.begin() + row * 3 * 64;
      EXPECT_EQ(padding, std::all_of(image, image + 3 * 64, [](float v) { return v == 0; }));
    }
    EXPECT_EQ(batch.samples, samples);
    EXPECT_EQ(batch.targets, targets);
  }
}

/// Everything about a micro-batch, to compare two runs.
struct Copy {
  int64_t tokens;
  std::vector<uint64_t> sample_ids;
  std::vector<float> images;
  Ids input_ids, labels;
  friend bool operator==(const Copy&, const Copy&) = default;
};

Copy copy_of(const MicroBatch& batch) {
  const auto count = batch.batch * batch.tokens;
  return {batch.tokens,
          batch.sample_ids,
          batch.images,
          {batch.input_ids.begin(), batch.input_ids.begin() + count},
          {batch.labels.begin(), batch.labels.begin() + count}};
}

TEST_F(LoaderTest, DependsOnTheNumberAlone) {
  use(kCaptions);
  config_.transform.training = true;
  config_.buckets = {4, 8, 16};
  config_.slots = 12;
  std::vector<Copy> straight;
  const auto one = loader();
  for (int64_t m = 0; m < config_.slots; ++m) straight.push_back(copy_of(one->next()));
  for (const auto& [threads, prefetch] : {std::pair{3, 1}, {3, 5}, {1, 1}}) {
    config_.threads = threads;
    config_.prefetch = prefetch;
    const auto other = loader();
    for (size_t m = 0; m < straight.size(); ++m) EXPECT_EQ(copy_of(other->next()), straight[m]) << threads << ' ' << m;
  }
  // Two ranks, entered in the middle, backwards.
  config_.threads = 2;
  config_.slots = 6;
  for (int64_t rank : {0, 1}) {
    config_.micro_batch_of_slot = [rank](int64_t slot) { return 10 - 2 * slot + rank; };
    const auto other = loader();
    for (int64_t slot = 0; slot < config_.slots; ++slot)
      EXPECT_EQ(copy_of(other->next()), straight[static_cast<size_t>(10 - 2 * slot + rank)]) << rank << ' ' << slot;
  }
  EXPECT_NE(straight[0].images, straight[4].images);  // another epoch
}

TEST_F(LoaderTest, IdleSlotsAreAllPadding) {
  use(kCaptions);
  config_.buckets = {4, 16};
  config_.micro_batch_of_slot = [](int64_t slot) { return slot == 1 ? kIdleMicroBatch : slot; };
  config_.slots = 2;
  const auto loader = this->loader();
  loader->next();
  const MicroBatch& idle = loader->next();
  EXPECT_EQ(idle.number, kIdleMicroBatch);
  EXPECT_EQ(idle.tokens, 4);
  EXPECT_EQ(idle.samples, 0);
  EXPECT_EQ(idle.targets, 0);
  EXPECT_EQ(idle.key_lengths, (Ids{1, 1}));
  EXPECT_TRUE(throws_error([&] { loader->next(); }, ErrorKind::kInvalidArgument, {"there are 2 slots"}));
}

TEST_F(LoaderTest, ErrorsReachTheConsumerWithTheFile) {
  use(kCaptions);
  folder_.write("images/grey.png", "not an image");
  config_.order.shuffle = false;
  config_.threads = 3;
  const auto loader = this->loader();
  for (int attempt = 0; attempt < 2; ++attempt)  // sample 1 is in the first micro-batch
    EXPECT_TRUE(throws_error([&] { loader->next(); }, ErrorKind::kData, {"JPEG or PNG", "grey.png"}));
  std::filesystem::remove(folder_.path() / "images/rgb.jpg");  // of two errors, the first row's
  EXPECT_TRUE(throws_error([&] { this->loader()->next(); }, ErrorKind::kData, {"rgb.jpg"}));
  config_.micro_batch_of_slot = [](int64_t) -> int64_t { return -7; };
  EXPECT_TRUE(throws_error([&] { this->loader()->next(); }, ErrorKind::kInvalidArgument, {"got -7"}));
  config_.micro_batch_of_slot = nullptr;
  config_.prefetch = 0;
  EXPECT_TRUE(throws_error([&] { this->loader(); }, ErrorKind::kConfig, {"loader", "prefetch", "0"}));
}

TEST_F(LoaderTest, SkippedImagesAreCounted) {
  use(kCaptions);
  folder_.write("images/grey.png", "");                         // samples 1 and 6
  std::filesystem::remove(folder_.path() / "images/rgba.png");  // sample 4
  dataset_config_.missing_images = MissingImages::kKeep;
  reload();
  config_.order.shuffle = false;
  config_.image_policy = ImagePolicy::kSkip;
  config_.slots = 4;
  const auto loader = this->loader();
  std::map<uint64_t, float> weights;
  for (int64_t m = 0; m < 4; ++m) {
    const MicroBatch& batch = loader->next();
    for (size_t row = 0; row < 2; ++row) {
      weights[batch.sample_ids[row]] = batch.weights[row];
      const auto labels =
          std::span(batch.labels).subspan(row * static_cast<size_t>(batch.tokens), static_cast<size_t>(batch.tokens));
      EXPECT_EQ(batch.weights[row] == 0, std::ranges::all_of(labels, [](int32_t l) { return l == kIgnoredLabel; }));
    }
  }
  EXPECT_EQ(weights, (std::map<uint64_t, float>{
                         {100, 1}, {101, 0}, {102, 1}, {103, 1}, {104, 0}, {105, 1}, {106, 0}, {kPaddingSample, 0}}));
  EXPECT_EQ(loader->skipped_images(), 3);
  EXPECT_NE(loader->skip_message().find("grey.png"), std::string::npos) << loader->skip_message();
}

TEST_F(LoaderTest, StopsCleanlyAtAnyMoment) {
  use(kCaptions);
  for (int taken = 0; taken < 4; ++taken) {
    config_.threads = 1 + taken % 3;
    const auto loader = this->loader();
    for (int i = 0; i < taken; ++i) loader->next();
    EXPECT_GE(loader->total_wait_ms(), loader->last_wait_ms());
  }
}

TEST_F(LoaderTest, DescribesASample) {
  use(kCaptions);
  config_.transform.training = true;
  config_.order.shuffle = false;
  config_.seed = 3;
  const auto description = describe_sample(*dataset_, *texts_, &tokenizer_, config_, 0, 3);
  EXPECT_EQ(description.name, "103");
  EXPECT_TRUE(description.image.ends_with("images/palette_transparent.png")) << description.image;
  EXPECT_EQ(description.text, "</s>the hat and the mat</s>");
  EXPECT_EQ(description.caption, kCaptions[3]);
  EXPECT_EQ(description.image_width, 13);
  EXPECT_EQ(description.image_height, 9);
  const auto loader = this->loader();
  loader->next();
  const MicroBatch& batch = loader->next();
  EXPECT_TRUE(std::equal(description.pixels.begin(), description.pixels.end(), batch.images.begin() + 3 * 64));
  EXPECT_TRUE(throws_error([&] { describe_sample(*dataset_, *texts_, &tokenizer_, config_, 0, 7); },
                           ErrorKind::kInvalidArgument, {"0..6", "got 7"}));
}

TEST_F(LoaderTest, WithoutImagesNoFileIsTouched) {
  use(kCaptions);
  std::filesystem::remove_all(dataset_config_.images);
  config_.with_images = false;
  config_.buckets = {16};
  const auto loader = this->loader();
  for (int64_t m = 0; m < 4; ++m) {
    const MicroBatch& batch = loader->next();
    EXPECT_EQ(batch.image_size, 0);
    EXPECT_TRUE(batch.images.empty() && batch.classes.empty());
    EXPECT_EQ(batch.samples, m < 3 ? 2 : 1);
  }
  const auto description = describe_sample(*dataset_, *texts_, &tokenizer_, config_, 0, 3);
  EXPECT_TRUE(description.image.empty() && description.pixels.empty());
  EXPECT_EQ(description.text, "</s>the hat and the mat</s>");
}

TEST(RealLoader, PhotographsOfCoco) {
  const auto root = test_data("coco_open"), opt = test_data("tokenizers/opt");
  PERMAFROST_NEEDS(root && opt);
  const Tokenizer tokenizer = Tokenizer::load({*opt, TokenizerRules::kOpt, {}});
  const CaptionDataset dataset =
      CaptionDataset::load({*root / "captions.json", *root / "images", CaptionFormat::kCoco, "", MissingImages::kFail});
  const TextTable texts(dataset, tokenizer, {64, LongTextPolicy::kFail, 1});
  LoaderConfig config;
  config.order = {texts.size(), 32, 16, 1, true};
  config.buckets = length_buckets(8, 64);
  config.transform.training = true;
  config.threads = 2;
  config.slots = 3;
  Loader loader(dataset, texts, config);
  for (int64_t slot = 0; slot < config.slots; ++slot) {
    const MicroBatch& batch = loader.next();
    EXPECT_EQ(batch.samples, 16);
    EXPECT_EQ(batch.tokens, loader.index().padded_tokens(slot));
    EXPECT_TRUE(std::ranges::all_of(batch.images, [](float v) { return v > -2.5f && v < 2.7f; }));
    EXPECT_TRUE(std::ranges::all_of(batch.input_ids, [](int32_t i) { return i >= 0 && i < 50265; }));
  }
  std::cout << "loader: " << dataset.size() << " samples, longest " << texts.longest()
            << " tokens; 3 micro-batches of 16 in " << loader.total_wait_ms() << " ms with " << config.threads
            << " threads\n";
}

}  // namespace
}  // namespace permafrost::testing
