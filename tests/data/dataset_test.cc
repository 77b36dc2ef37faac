#include <algorithm>
#include <set>

#include "data/datasets/batch_order.h"
#include "data/datasets/caption_dataset.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

constexpr char kKarpathy[] = R"({"images": [
  {"filepath": "val2014", "filename": "a.jpg", "split": "restval", "cocoid": 1, "sentids": [7, 9],
   "sentences": [{"tokens": ["a", "dog"], "raw": "A dog. ", "imgid": 0, "sentid": 7}, {"raw": "Dogs", "sentid": 9}]},
  {"filepath": "train2014", "filename": "b.jpg", "split": "train", "sentences": [{"raw": "B", "sentid": 8}]},
  {"filepath": "val2014", "filename": "c.jpg", "split": "test", "sentences": [{"raw": "C", "sentid": 1}]}],
  "dataset": "coco"})";

CaptionDatasetConfig unchecked(const std::filesystem::path& captions, CaptionFormat format, std::string split = "") {
  return {captions, captions.parent_path() / "images", format, std::move(split), MissingImages::kKeep};
}

TEST(CaptionDataset, Coco) {
  const DataFolder folder;
  const auto config = write_small_dataset(folder, {"one", " two ", "three", "four", "five", "six \xC3\xA9"});
  const CaptionDataset dataset = CaptionDataset::load(config);
  ASSERT_EQ(dataset.size(), 6);
  EXPECT_EQ(dataset.images(), 5);
  EXPECT_EQ(dataset.images_without_sample(), 0);
  EXPECT_EQ(dataset.sample(1).id, 101u);
  EXPECT_EQ(dataset.sample(1).caption, " two ");
  EXPECT_EQ(dataset.sample(5).caption, "six \xC3\xA9");
  EXPECT_EQ(dataset.image_path(dataset.sample(5).image), folder.path() / "images" / "rgb.jpg");
  EXPECT_TRUE(dataset.sample(0).question.empty() && dataset.sample(0).answers.empty());
  EXPECT_TRUE(throws_error([&] { dataset.sample(6); }, ErrorKind::kInvalidArgument, {"0..5", "got 6"}));
  std::vector<uint8_t> bytes;
  const std::vector<std::string> parts{"dataset: image must lie in 0..4"};
  EXPECT_TRUE(throws_error([&] { dataset.image_id(5); }, ErrorKind::kInvalidArgument, parts));
  EXPECT_TRUE(throws_error([&] { dataset.image_name(-1); }, ErrorKind::kInvalidArgument, parts));
  EXPECT_TRUE(throws_error([&] { dataset.short_image_name(5); }, ErrorKind::kInvalidArgument, parts));
  EXPECT_TRUE(throws_error([&] { dataset.read_image(5, bytes); }, ErrorKind::kInvalidArgument, parts));
  EXPECT_TRUE(throws_error([&] { dataset.image_bytes(-1); }, ErrorKind::kInvalidArgument, parts));
}

TEST(CaptionDataset, AnnotationsMayComeFirst) {
  const DataFolder folder;
  const auto file =
      folder.write("c.json", R"({"info": {"images": 3}, "annotations": [{"id": 1, "image_id": 5, "caption": "x"}],
    "licenses": [{"id": 1}], "images": [{"id": 4, "file_name": "d.jpg"}, {"id": 5, "file_name": "sub/e.jpg"}]})");
  const CaptionDataset dataset = CaptionDataset::load(unchecked(file, CaptionFormat::kCoco));
  ASSERT_EQ(dataset.size(), 1);
  EXPECT_EQ(dataset.images_without_sample(), 1);
  EXPECT_EQ(dataset.image_path(dataset.sample(0).image), folder.path() / "images/sub/e.jpg");
}

TEST(CaptionDataset, Karpathy) {
  const DataFolder folder;
  const auto file = folder.write("dataset_coco.json", kKarpathy);
  const CaptionDataset train = CaptionDataset::load(unchecked(file, CaptionFormat::kKarpathy, "train"));
  ASSERT_EQ(train.size(), 3);  // restval joins train
  EXPECT_EQ(train.sample(0).caption, "A dog. ");
  EXPECT_EQ(train.sample(1).id, 9u);
  EXPECT_EQ(train.sample(1).image, train.sample(0).image);
  EXPECT_EQ(train.image_path(train.sample(2).image), folder.path() / "images/train2014/b.jpg");
  EXPECT_EQ(CaptionDataset::load(unchecked(file, CaptionFormat::kKarpathy, "test")).size(), 1);
  EXPECT_EQ(CaptionDataset::load(unchecked(file, CaptionFormat::kKarpathy)).size(), 4);
}

TEST(CaptionDataset, KarpathyImagesWithoutCocoId) {
  const DataFolder folder;
  const auto file = folder.write("dataset_flickr30k.json", R"({"images": [
    {"filename": "a.jpg", "split": "val", "imgid": 70, "sentences": []},
    {"filename": "b.jpg", "split": "train", "imgid": 71, "cocoid": 5, "sentences": [{"raw": "B", "sentid": 1}]},
    {"filename": "c.jpg", "split": "train", "imgid": 72, "sentences": [{"raw": "C", "sentid": 2}]},
    {"filename": "d.jpg", "split": "train", "sentences": [{"raw": "D", "sentid": 3}]}]})");
  const CaptionDataset train = CaptionDataset::load(unchecked(file, CaptionFormat::kKarpathy, "train"));
  ASSERT_EQ(train.images(), 3);
  EXPECT_EQ(train.image_id(0), 5u);
  EXPECT_EQ(train.image_id(1), 72u);
  EXPECT_EQ(train.image_id(2), 3u) << "its place in the file";
}

TEST(CaptionDataset, RealCaptions) {
  const auto file = test_data("coco_captions/captions_val2017.json");
  PERMAFROST_NEEDS(file);
  const CaptionDataset dataset = CaptionDataset::load(unchecked(*file, CaptionFormat::kCoco));
  EXPECT_EQ(dataset.images(), 5000);
  EXPECT_EQ(dataset.size(), 25014);
}

class DatasetErrors : public ::testing::Test {
 protected:
  ::testing::AssertionResult refused(std::string_view json, const std::vector<std::string>& parts,
                                     CaptionFormat format = CaptionFormat::kCoco, const std::string& split = "") {
    const auto file = folder_.write("c.json", json);
    return throws_error([&] { CaptionDataset::load(unchecked(file, format, split)); }, ErrorKind::kData, parts);
  }
  DataFolder folder_;
};

TEST_F(DatasetErrors, FilesAndJson) {
  EXPECT_TRUE(throws_error([&] { CaptionDataset::load(unchecked(folder_.path() / "no.json", CaptionFormat::kCoco)); },
                           ErrorKind::kData, {"No such file", "no.json"}));
  EXPECT_TRUE(refused("{\"images\": [\n  {\"id\": 1,, }]}", {"line 2, column 12", "c.json"}));
  EXPECT_TRUE(refused("{\"images\": [{\"id\": 1", {"line 1", "c.json"}));
  EXPECT_TRUE(refused("[]", {"lists 'images' and 'annotations' is expected; got array", "c.json"}));
  EXPECT_TRUE(refused(R"({"images": []})", {"lists 'images' and 'annotations'", "got other keys"}));
  EXPECT_TRUE(refused(R"({"annotations": []})", {"the list 'images' is expected"}, CaptionFormat::kKarpathy));
  EXPECT_TRUE(refused("{\"images\": [{\"id\": 1, \"file_name\": \"\xFF\"}]}", {"well-formed JSON", "c.json"}));
}

TEST_F(DatasetErrors, Entries) {
  EXPECT_TRUE(
      refused(R"({"images": [{"id": "x"}], "annotations": []})", {"each image", "whole number 'id'", R"({"id":"x"})"}));
  EXPECT_TRUE(refused(R"({"images": [{"id": -1}], "annotations": []})", {"each image", "whole number 'id'"}));
  EXPECT_TRUE(refused(R"({"images": [{"id": 1}], "annotations": []})", {"each image", "text 'file_name'"}));
  EXPECT_TRUE(refused(R"({"images": [], "annotations": [{"id": 3, "image_id": 1, "bbox": []}]})",
                      {"each annotation", "text 'caption'", "bbox"}));
  EXPECT_TRUE(refused(R"({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []})",
                      {"image ids must be unique; got id 1 twice"}));
  EXPECT_TRUE(
      refused(R"({"images": [{"filename": "a", "split": "train"}]})", {"list 'sentences'"}, CaptionFormat::kKarpathy));
  EXPECT_TRUE(refused(R"({"images": [{"filename": "a", "split": "train", "sentences": [3]}]})",
                      {"each sentence", "'sentid'"}, CaptionFormat::kKarpathy));
}

TEST_F(DatasetErrors, EntriesThatAreNoObjects) {
  for (const std::string entry : {"5", "null", "\"lost\"", "[1, {}]", "[]"}) {
    const std::string image = R"({"id": 1, "file_name": "a"})", caption = R"({"id": 2, "image_id": 1, "caption": "x"})";
    const std::string shown = entry == "[1, {}]" ? "got [1,{}]" : "got " + entry;
    EXPECT_TRUE(refused(concat(R"({"images": [)", image, R"(], "annotations": [)", caption, ", ", entry, "]}"),
                        {"each annotation must have a whole number 'id'", shown, "c.json"}));
    EXPECT_TRUE(refused(concat(R"({"images": [)", entry, ", ", image, R"(], "annotations": [)", caption, "]}"),
                        {"each image must have a whole number 'id'", shown, "c.json"}));
    EXPECT_TRUE(refused(concat(R"({"images": [)", entry, "]}"), {"each image must have a text 'split'", shown},
                        CaptionFormat::kKarpathy));
  }
  EXPECT_TRUE(refused(R"({"images": {"id": 1, "file_name": "a"}, "annotations": 5})", {"got other keys"}));
}

TEST_F(DatasetErrors, Contents) {
  EXPECT_TRUE(refused(
      R"({"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 17, "image_id": 5, "caption": "x"}]})",
      {"annotation 17 with image_id 5", "not among 1 images"}));
  EXPECT_TRUE(
      refused(R"({"images": [{"id": 1, "file_name": "a"}], "annotations": []})", {"at least one caption", "got none"}));
  EXPECT_TRUE(
      refused(kKarpathy, {"of split 'minival'", "the file has: test, train"}, CaptionFormat::kKarpathy, "minival"));
  EXPECT_TRUE(
      refused(R"({"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 2, "image_id": 1, "caption": "x"},
                      {"id": 2, "image_id": 1, "caption": "y"}]})",
              {"caption ids must be unique; got id 2 twice"}));
  EXPECT_TRUE(throws_error([&] { CaptionDataset::load(unchecked("c.json", CaptionFormat::kCoco, "train")); },
                           ErrorKind::kConfig, {"no splits", "got split 'train'"}));
}

TEST_F(DatasetErrors, IdsThatAreTooLarge) {
  const auto file = [](const char* id) {
    return concat(R"({"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "caption": "x", "id": )",
                  id, "}]}");
  };
  EXPECT_TRUE(
      refused(file("72057594037927936"), {"sample ids below 2^56 are expected; got 72057594037927936", "c.json]"}));
  const auto largest = folder_.write("c.json", file("72057594037927935"));
  EXPECT_EQ(CaptionDataset::load(unchecked(largest, CaptionFormat::kCoco)).sample(0).id, 72057594037927935u);
}

TEST_F(DatasetErrors, MissingImages) {
  auto config = write_small_dataset(folder_, {"a", "b"});
  std::filesystem::remove(config.images / "grey.png");
  std::filesystem::remove(config.images / "rgba.png");
  EXPECT_TRUE(throws_error([&] { CaptionDataset::load(config); }, ErrorKind::kData,
                           {"got 2 of 5 missing", (config.images / "grey.png").string(), "captions.json"}));
  config.missing_images = MissingImages::kKeep;
  EXPECT_EQ(CaptionDataset::load(config).size(), 2);
  config.missing_images = MissingImages::kFail;
  config.images = folder_.path() / "elsewhere";
  EXPECT_TRUE(
      throws_error([&] { CaptionDataset::load(config); }, ErrorKind::kData, {"a folder of images", "elsewhere"}));
}

TEST(BatchOrder, EveryEpochIsAPermutationWithPaddingBehind) {
  for (int64_t samples : {1, 7, 64, 1000}) {
    const BatchOrder order{samples, 24, 8, 3, true};
    EXPECT_EQ(order.micro_batches_per_epoch(), order.steps_per_epoch() * 3);
    EXPECT_TRUE(order.steps_per_epoch() * 24 >= samples && (order.steps_per_epoch() - 1) * 24 < samples);
    std::vector<std::vector<int64_t>> epochs;
    for (uint32_t epoch : {0u, 1u}) {
      std::vector<int64_t> seen;
      for (int64_t p = 0; p < order.steps_per_epoch() * 24; ++p) {
        const int64_t sample = order.sample_at(epoch, p);
        if (p < samples) seen.push_back(sample);
        EXPECT_EQ(sample == BatchOrder::kPadding, p >= samples);
      }
      epochs.push_back(seen);
      EXPECT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), static_cast<size_t>(samples));
      EXPECT_TRUE(*std::min_element(seen.begin(), seen.end()) == 0 &&
                  *std::max_element(seen.begin(), seen.end()) == samples - 1);
    }
    if (samples >= 64) {
      EXPECT_NE(epochs[0], epochs[1]);
    }
  }
  const BatchOrder straight{5, 2, 1, 3, false};
  for (int64_t p = 0; p < 5; ++p) EXPECT_EQ(straight.sample_at(9, p), p);
  EXPECT_EQ(straight.sample_at(9, 5), BatchOrder::kPadding);
}

TEST(BatchOrder, Refuses) {
  EXPECT_TRUE(throws_error([] { BatchOrder{0, 4, 2}.check(); }, ErrorKind::kData, {"at least one sample", "got 0"}));
  EXPECT_TRUE(throws_error(
      [] {
        BatchOrder{9, 4, 3}.check();
      },
      ErrorKind::kConfig, {"multiple of the micro-batch", "4 and 3"}));
  EXPECT_TRUE(throws_error([] { BatchOrder{9, 4, 0}.check(); }, ErrorKind::kConfig, {"4 and 0"}));
  EXPECT_TRUE(throws_error(
      [] {
        BatchOrder{9, 4, 2}.sample_at(0, 12);
      },
      ErrorKind::kInvalidArgument, {"an epoch of 12", "got 12"}));
}

}  // namespace
}  // namespace permafrost::testing
