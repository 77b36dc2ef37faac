#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "data/datasets/batch_order.h"
#include "data/datasets/caption_dataset.h"
#include "data/datasets/mixed_dataset.h"
#include "data/datasets/sample_id.h"
#include "data/datasets/selection.h"
#include "data/loader/text_table.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

std::unique_ptr<const Dataset> captions(const DataFolder& folder, int count, const std::string& word) {
  std::vector<std::string> texts;
  for (int i = 0; i < count; ++i) texts.push_back(word + std::string(static_cast<size_t>(i), 'h'));
  return std::make_unique<CaptionDataset>(CaptionDataset::load(write_small_dataset(folder, texts)));
}

TEST(Selection, SmallerPartsOfLargerOnes) {
  const auto all = random_indices(100, 100, 3), half = random_indices(100, 50, 3), tenth = random_indices(100, 10, 3);
  EXPECT_EQ(all, first_indices(100, 100));
  EXPECT_EQ(half.size(), 50u);
  EXPECT_NE(half, first_indices(100, 50));
  EXPECT_TRUE(std::ranges::includes(half, tenth));
  EXPECT_NE(random_indices(100, 50, 4), half);
  EXPECT_EQ(random_indices(100, 50, 3), half);

  const DataFolder folder;
  const SelectedDataset selected(captions(folder, 7, "the"), {1, 4, 6});
  EXPECT_EQ(selected.size(), 3);
  EXPECT_EQ(selected.sample(1).id, 104u);
  EXPECT_EQ(selected.image_name(selected.sample(1).image), (folder.path() / "images/rgba.png").string());
  EXPECT_TRUE(throws_error([&] { selected.sample(3); }, ErrorKind::kInvalidArgument, {"0..2", "got 3"}));
  const DataFolder other;
  EXPECT_TRUE(throws_error(
      [&] {
        SelectedDataset(captions(other, 2, "a"), {1, 1});
      },
      ErrorKind::kInvalidArgument, {"ascending indices below 2"}));
}

class Mix : public ::testing::Test {
 protected:
  /// Datasets of 5 and 3 samples whose ids and images are numbered alike.
  MixedDataset mixed(double first, double second) const {
    std::vector<MixedDataset::Entry> entries;
    entries.push_back({captions(DataFolder(), 5, "the"), first});
    entries.push_back({captions(DataFolder(), 3, "a"), second});
    return MixedDataset(std::move(entries));
  }
};

TEST_F(Mix, SamplesAreToldApart) {
  const MixedDataset mix = mixed(1, 2);
  ASSERT_EQ(mix.size(), 8);
  EXPECT_EQ(mix.images(), 10);
  EXPECT_EQ(mix.sample(4).id, 104u);
  EXPECT_EQ(mix.sample(5).id, 100u | uint64_t{1} << kSampleIdBits);
  EXPECT_EQ(sample_name(mix.sample(5)), "100");
  EXPECT_EQ(mix.sample(5).caption, "a");
  EXPECT_EQ(mix.sample(5).image, 5);
  EXPECT_EQ(mix.image_id(6), 11u);
  EXPECT_TRUE(throws_error([&] { mix.sample(8); }, ErrorKind::kInvalidArgument, {"0..7"}));
  EXPECT_TRUE(
      throws_error([&] { mixed(1, 0); }, ErrorKind::kConfig, {"weight above 0", "got 0", "data.mix[1].weight"}));
  EXPECT_TRUE(throws_error([&] { MixedDataset({}); }, ErrorKind::kConfig, {"1 to 254 datasets", "got 0"}));
}

/// With class labels, which captions have none of.
class Labelled : public SelectedDataset {
 public:
  using SelectedDataset::SelectedDataset;
  int64_t labels_per_image() const override { return 3; }
};

TEST_F(Mix, RefusesOtherNumbersOfLabels) {
  std::vector<MixedDataset::Entry> entries;
  entries.push_back({captions(DataFolder(), 2, "a"), 1});
  entries.push_back({std::make_unique<Labelled>(captions(DataFolder(), 2, "a"), first_indices(2, 2)), 1});
  EXPECT_TRUE(throws_error([&] { MixedDataset{std::move(entries)}; }, ErrorKind::kData,
                           {"datasets with 0 class labels per image", "got 3 in mix[1]"}));
}

TEST_F(Mix, EpochsKeepTheWeightsAndPassesAreWhole) {
  const MixedDataset mix = mixed(1, 3);
  const TextTable texts(mix, small_tokenizer(), {});
  BatchOrder order{8, 4, 2, 9, true, texts.parts()};
  order.check();
  EXPECT_EQ(order.quota_of(0), 2);
  EXPECT_EQ(order.quota_of(1), 6);
  std::vector<std::vector<int64_t>> of_part(2);
  for (uint32_t epoch = 0; epoch < 30; ++epoch) {
    int64_t counts[2] = {0, 0};
    for (int64_t p = 0; p < 8; ++p) {
      const int64_t sample = order.sample_at(epoch, p);
      ASSERT_TRUE(sample >= 0 && sample < 8);
      ++counts[sample >= 5];
      of_part[sample >= 5].push_back(sample);
    }
    EXPECT_EQ(counts[0], 2);
    EXPECT_EQ(counts[1], 6);
  }
  for (size_t part : {0u, 1u}) {  // 60 places for 5 samples, 180 for 3: every sample as often as any
    std::map<int64_t, int> count;
    for (int64_t sample : of_part[part]) ++count[sample];
    EXPECT_EQ(count.size(), part == 0 ? 5u : 3u);
    for (const auto& [sample, times] : count) EXPECT_EQ(times, part == 0 ? 12 : 60) << sample;
  }
  const auto epoch_of = [&](uint64_t seed) {
    const BatchOrder by_seed{8, 4, 2, seed, true, texts.parts()};
    std::vector<int64_t> samples;
    for (int64_t p = 0; p < 8; ++p) samples.push_back(by_seed.sample_at(0, p));
    return samples;
  };
  EXPECT_NE(epoch_of(9), epoch_of(10));
  order.shuffle = false;
  for (int64_t p = 0; p < 8; ++p) EXPECT_EQ(order.sample_at(3, p), p);
}

TEST_F(Mix, TextsLeftOutMakePartsSmaller) {
  const MixedDataset mix = mixed(1, 1);
  TextConfig config;
  config.max_tokens = 5;
  config.long_text = LongTextPolicy::kSkip;
  const TextTable texts(mix, small_tokenizer(), config);
  const auto parts = texts.parts();
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].count + parts[1].count, texts.size());
  EXPECT_EQ(parts[1].begin, parts[0].count);
  EXPECT_LT(parts[0].count, 5);
  config.max_tokens = 3;  // "a" fits, "the" does not
  EXPECT_TRUE(throws_error([&] { TextTable(mix, small_tokenizer(), config); }, ErrorKind::kData,
                           {"every dataset of a mix must keep a sample", "the 5 of mix[0]"}));
}

TEST(BatchOrderOfAMix, Refuses) {
  EXPECT_TRUE(throws_error(
      [] {
        BatchOrder{3, 1, 1, 0, true, {{0, 2, 1}, {2, 2, 1}}}.check();
      },
      ErrorKind::kConfig, {"all 3 samples; got 4"}));
  EXPECT_TRUE(throws_error(
      [] {
        BatchOrder{3, 1, 1, 0, true, {{0, 2, 0}, {2, 1, 1}}}.check();
      },
      ErrorKind::kConfig, {"weights above 0"}));
  const double huge = std::numeric_limits<double>::max();
  for (const double weight : {huge, std::numeric_limits<double>::infinity()})
    EXPECT_TRUE(throws_error(
        [&] {
          BatchOrder{3, 1, 1, 0, true, {{0, 2, weight}, {2, 1, weight}}}.check();
        },
        ErrorKind::kConfig, {"weights with a finite sum are expected; got inf"}));
}

TEST(BatchOrderOfAMix, RefusesAPartThatWouldNeverCome) {
  const auto order = [](double first, double second, bool shuffle = true) {
    return BatchOrder{8, 4, 2, 0, shuffle, {{0, 5, first}, {5, 3, second}}};
  };
  EXPECT_TRUE(throws_error([&] { order(100, 1).check(); }, ErrorKind::kConfig,
                           {"got weight 1 of 101, which gives mix[1] no sample of an epoch of 8"}));
  EXPECT_TRUE(throws_error([&] { order(1e-300, 1).check(); }, ErrorKind::kConfig, {"which gives mix[0] no sample"}));
  EXPECT_NO_THROW(order(100, 1, false).check()) << "in the order of the dataset every sample comes";
  EXPECT_NO_THROW(order(7, 1).check());
  EXPECT_EQ(order(7, 1).quota_of(1), 1);
}

TEST(BatchOrderOfAMix, KeepsItsOrder) {
  const BatchOrder order{9, 9, 9, 42, true, {{0, 4, 1}, {4, 3, 2.5}, {7, 2, 1}}};
  std::vector<int64_t> samples;
  for (uint32_t epoch : {0u, 1u, 5u})
    for (int64_t p = 0; p < 9; ++p) samples.push_back(order.sample_at(epoch, p));
  EXPECT_EQ(samples, (std::vector<int64_t>{6, 7, 5, 4, 1, 8, 5, 6, 0,  //
                                           5, 5, 3, 4, 6, 2, 8, 7, 4,  //
                                           7, 6, 8, 5, 5, 1, 6, 2, 4}));
}

}  // namespace
}  // namespace permafrost::testing
