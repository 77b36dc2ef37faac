#include "launch/sample_photos.h"

#include <set>

#include "core/base/json.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"
#include "tests/support/file_size_limit.h"

namespace permafrost {
namespace {
using testing::FileSizeLimit;
using testing::throws_error;

TEST(SamplePhotos, HaveCocosLayout) {
  const ScratchFolder folder;
  write_sample_photos(folder.path(), 6, 32, 1);
  const auto json = parse_json(read_file(folder / "captions.json"));
  ASSERT_EQ(json["images"].size(), 6u);
  ASSERT_EQ(json["annotations"].size(), 12u);
  for (const auto& image : json["images"]) {
    const std::string name = image["file_name"].get<std::string>(), bytes = read_file(folder.path() / "images" / name);
    if (name.ends_with(".png"))
      EXPECT_EQ(bytes.substr(0, 4), "\x89PNG");
    else
      EXPECT_EQ(bytes.substr(0, 3), "\xFF\xD8\xFF");
    EXPECT_EQ(image["width"], 32);
  }
  for (const auto& annotation : json["annotations"]) {
    EXPECT_LT(annotation["image_id"].get<int>(), 6);
    EXPECT_EQ(annotation["caption"].get<std::string>().find("a "), 0u);
  }
}

TEST(SamplePhotos, AreAFunctionOfTheSeed) {
  const ScratchFolder a, b, c;
  write_sample_photos(a.path(), 4, 32, 1);
  write_sample_photos(b.path(), 4, 32, 1);
  write_sample_photos(c.path(), 4, 32, 2);
  for (const char* name : {"captions.json", "images/000002.jpg", "images/000003.png"}) {
    EXPECT_EQ(read_file(a / name), read_file(b / name)) << name;
    EXPECT_NE(read_file(a / name), read_file(c / name)) << name;
  }
}

TEST(ByteTokenizer, HasEveryByteOnceAndTheSpecialTokens) {
  const ScratchFolder folder;
  write_byte_tokenizer(folder.path());
  const auto vocabulary = parse_json(read_file(folder / "vocab.json"));
  EXPECT_EQ(vocabulary.size(), 260u);
  EXPECT_EQ(vocabulary["</s>"], 2);
  EXPECT_EQ(vocabulary["<pad>"], 1);
  EXPECT_EQ(vocabulary["A"], 4 + 'A');
  EXPECT_EQ(vocabulary["\u0120"], 4 + ' ');  // GPT-2's sign for a space
  EXPECT_EQ(vocabulary["\u010A"], 4 + '\n');
  EXPECT_EQ(vocabulary["\u0143"], 4 + 0xAD);  // the last one without a sign of its own
  std::set<int> ids;
  for (const auto& [token, id] : vocabulary.items()) ids.insert(id.get<int>());
  EXPECT_EQ(*ids.begin(), 0);
  EXPECT_EQ(*ids.rbegin(), 259);
  EXPECT_EQ(ids.size(), 260u);
  EXPECT_EQ(read_file(folder / "merges.txt"), "#version: 0.2\n");
}

TEST(SamplePhotos, AFullDiskIsNamed) {
  const ScratchFolder folder;
  for (const auto& [bytes, name] : {std::pair<rlim_t, const char*>{100, "000000.jpg"}, {1000, "captions.json"}}) {
    const FileSizeLimit limit(bytes);
    EXPECT_TRUE(throws_error([&] { write_sample_photos(folder.path(), 6, 8, 1); }, ErrorKind::kStorage,
                             {"cannot write", name, folder.path().string()}));
  }
}

TEST(SamplePhotos, AFolderThatCannotBeMadeIsNamed) {
  EXPECT_TRUE(
      throws_error([] { write_sample_photos("/proc/none", 1, 32, 1); }, ErrorKind::kStorage, {"/proc/none/images"}));
  EXPECT_TRUE(throws_error([] { write_byte_tokenizer("/proc/none"); }, ErrorKind::kStorage, {"/proc/none"}));
}

}  // namespace
}  // namespace permafrost
