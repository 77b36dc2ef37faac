#include "core/weights/zip_archive.h"

#include <thread>

#include "tests/weights/scratch.h"
#include "tests/weights/zip_bytes.h"

namespace permafrost::testing {
namespace {

std::string noise(size_t bytes) {
  std::string text(bytes, '\0');
  uint32_t state = 1;
  for (char& c : text) c = static_cast<char>((state = state * 1664525u + 1013904223u) >> 28);
  return text;
}

class ZipArchiveTest : public ::testing::Test {
 protected:
  ZipArchive open(const std::vector<ZipEntry>& entries) { return open_bytes(zip_bytes(entries)); }
  ZipArchive open_bytes(const std::string& bytes) {
    write_text(path_, bytes);
    return ZipArchive(path_, "an archive");
  }
  ::testing::AssertionResult refused(const std::string& bytes, std::vector<std::string> parts) {
    parts.push_back(path_);
    return throws_error([&] { open_bytes(bytes); }, ErrorKind::kWeights, parts);
  }
  static std::string slice(const ZipArchive& archive, const std::string& name, int64_t offset, size_t bytes) {
    std::string out(bytes, '\0');
    archive.read(*archive.find(name), offset, std::as_writable_bytes(std::span(out)));
    return out;
  }

  ScratchFolder folder_;
  std::string path_ = folder_ / "a.zip";
};

TEST_F(ZipArchiveTest, ReadsStoredAndDeflatedMembersBySlices) {
  const std::string long_text = noise(300'000);
  for (const bool zip64 : {false, true}) {
    const std::string bytes = zip_bytes({{.name = "stored", .data = long_text, .zip64 = zip64},
                                         {.name = "packed", .data = long_text, .deflate = true, .zip64 = zip64},
                                         {.name = "none", .data = ""},
                                         {.name = "nothing packed", .data = "", .deflate = true}},
                                        zip64);
    const ZipArchive archive = open_bytes(bytes);
    EXPECT_EQ(archive.members().size(), 4u);
    EXPECT_EQ(archive.find("other"), nullptr);
    for (const std::string name : {"stored", "packed"}) {
      for (const int64_t offset : {100'000, 0, 299'990, 5, 5, 200'000})  // backwards too
        EXPECT_EQ(slice(archive, name, offset, 10), long_text.substr(static_cast<size_t>(offset), 10))
            << name << offset;
      EXPECT_EQ(archive.read_whole(*archive.find(name), 300'000), long_text);
      EXPECT_TRUE(throws_error([&] { archive.read_whole(*archive.find(name), 299'999); }, ErrorKind::kWeights,
                               {"at most 299999 bytes in '" + name + "'; got 300000"}));
      EXPECT_TRUE(throws_error([&] { slice(archive, name, 299'999, 2); }, ErrorKind::kInvalidArgument,
                               {"within the 300000 bytes"}));
    }
    EXPECT_EQ(archive.read_whole(*archive.find("none"), 0) + archive.read_whole(*archive.find("nothing packed"), 0),
              "");
  }
}

TEST_F(ZipArchiveTest, ServesSeveralThreads) {
  const std::string text = noise(100'000);
  const ZipArchive archive =
      open({{.name = "stored", .data = text}, {.name = "packed", .data = text, .deflate = true}});
  std::vector<std::thread> threads;
  std::vector<int> equal(4);
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const std::string name = t % 2 ? "stored" : "packed";
      std::string all;
      for (int64_t at = 0; at < 100'000; at += 10'000) all += slice(archive, name, at, 10'000);
      equal[t] = all == text;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, (std::vector<int>{1, 1, 1, 1}));
}

TEST_F(ZipArchiveTest, FindsDamageWhenAMemberIsReadWhole) {
  const std::string text = noise(5000);
  for (const bool deflate : {false, true}) {
    const ZipArchive archive = open({{.name = "x", .data = text, .deflate = deflate, .crc_change = 1}});
    EXPECT_EQ(slice(archive, "x", 0, 2500), text.substr(0, 2500));
    EXPECT_TRUE(throws_error([&] { slice(archive, "x", 2500, 2500); }, ErrorKind::kWeights,
                             {path_, "expected crc32", "'x'", "damaged"}));
    EXPECT_TRUE(
        throws_error([&] { archive.read_whole(archive.members()[0], 5000); }, ErrorKind::kWeights, {"expected crc32"}));
  }
  std::string bytes = zip_bytes({{.name = "x", .data = text, .deflate = true}});
  for (size_t at = 40; at < 80; ++at) bytes[at] = static_cast<char>(0xff);
  const ZipArchive archive = open_bytes(bytes);
  EXPECT_TRUE(throws_error([&] { archive.read_whole(archive.members()[0], 5000); }, ErrorKind::kWeights,
                           {path_, "expected deflated data in 'x'", "damaged"}));
}

TEST_F(ZipArchiveTest, FindsDamageInMembersReadInTurns) {
  const std::string text = noise(3000);
  for (const bool deflate : {false, true}) {
    const ZipArchive archive = open({{.name = "x", .data = text, .deflate = deflate, .crc_change = 1},
                                     {.name = "y", .data = text, .deflate = deflate},
                                     {.name = "z", .data = text, .deflate = deflate, .crc_change = 1}});
    for (const int64_t at : {0, 1000})
      for (const char* name : {"x", "y", "z"}) slice(archive, name, at, 1000);
    slice(archive, "x", 0, 10);  // somebody else begins, and does not go on
    for (const std::string name : {"z", "x"})
      EXPECT_TRUE(throws_error([&] { slice(archive, name, 2000, 1000); }, ErrorKind::kWeights,
                               {path_, "expected crc32", "'" + name + "'"}));
    slice(archive, "y", 2000, 1000);
  }
}

TEST_F(ZipArchiveTest, RefusesArchivesCutShortAtEveryByte) {
  const std::string bytes =
      zip_bytes({{.name = "one", .data = "some bytes"}, {.name = "two", .data = noise(100), .deflate = true}});
  open_bytes(bytes);
  for (size_t length = 0; length < bytes.size(); ++length)
    EXPECT_TRUE(refused(bytes.substr(0, length), {"expected a whole zip archive", "truncated?"})) << length;
  EXPECT_TRUE(throws_error([&] { ZipArchive(folder_ / "none", "an archive"); }, ErrorKind::kWeights,
                           {"expected an archive", "No such file"}));
}

TEST_F(ZipArchiveTest, RefusesWhatItDoesNotRead) {
  EXPECT_TRUE(refused(zip_bytes({{.name = "secret", .data = "x", .flags = 1}}), {"'secret' encrypted"}));
  EXPECT_TRUE(refused(zip_bytes({{.name = "a", .data = "x", .flags = 0x2000}}), {"'a' encrypted"}));
  EXPECT_TRUE(
      refused(zip_bytes({{.name = "a", .data = "x", .method = 12}}), {"stored or deflated; got 'a' by method 12"}));
  EXPECT_TRUE(refused(zip_bytes({{.name = "a", .data = "x"}, {.name = "a", .data = "y"}}),
                      {"every member once; got 'a' twice"}));
  std::string disks = zip_bytes({{.name = "a", .data = "x"}});
  disks[disks.size() - 18] = 1;
  EXPECT_TRUE(refused(disks, {"one disk"}));
}

TEST_F(ZipArchiveTest, RefusesContradictions) {
  EXPECT_TRUE(refused(zip_bytes({{.name = "a", .data = "xyz", .said_bytes = 4}}),
                      {"'a' cannot have 4 bytes in 3 stored ones"}));
  EXPECT_TRUE(refused(zip_bytes({{.name = "a", .data = "xyz", .said_bytes = 1000, .said_packed = 1000}}),
                      {"'a' must lie before byte", "got 1000 bytes"}));
  EXPECT_TRUE(refused(zip_bytes({{.name = "a", .data = "xyz", .said_header = 900}}), {"'a' must lie before byte"}));
  EXPECT_TRUE(refused(zip_bytes({{.name = "a", .data = "xyz", .said_header = 2}}),
                      {"the header of 'a' is not where it should be"}));
  EXPECT_TRUE(refused(zip_bytes({{.name = "a", .data = "xyz"}, {.name = "b", .data = "xyz", .said_header = 0}}),
                      {"the header of 'b' says something else"}));
  EXPECT_TRUE(refused(zip_bytes({{.name = "a", .data = "xyz", .deflate = true, .said_bytes = 1 << 20}}), {"zip bomb"}));
  for (const int64_t wide : {INT64_MAX, int64_t{-2}})
    EXPECT_TRUE(refused(zip_bytes({{.name = "a",
                                    .data = "x",
                                    .said_bytes = wide & INT64_MAX,
                                    .said_packed = wide & INT64_MAX,
                                    .zip64 = true}}),
                        {"'a' must lie before byte"}));
  std::string overlap = zip_bytes({{.name = "a", .data = zip_bytes({{.name = "b", .data = "xyz"}})},
                                   {.name = "b", .data = "xyz", .said_header = 31}});
  EXPECT_TRUE(refused(overlap, {"'a' and 'b' overlap"}));
}

TEST_F(ZipArchiveTest, RefusesDirectoriesThatLie) {
  const std::string sound = zip_bytes({{.name = "a", .data = "xyz"}});
  const auto changed = [&](size_t from_end, uint64_t value, int bytes) {
    std::string text = sound, number;
    put(number, value, bytes);
    return text.replace(text.size() - from_end, number.size(), number);
  };
  EXPECT_TRUE(refused(changed(12, 2, 2), {"entry at byte 47 of its directory is none"}));  // members
  EXPECT_TRUE(refused(changed(12, 0, 2), {"must end with the last of 0 members; got 47 bytes more"}));
  EXPECT_TRUE(refused(changed(10, 40, 4), {"entry at byte 0 of its directory"}));  // its bytes
  EXPECT_TRUE(refused(changed(10, 0x10000000, 4), {"its directory must have at most"}));
  EXPECT_TRUE(refused(changed(6, 0x00fffff0, 4), {"the directory must lie before byte"}));  // its place
  EXPECT_TRUE(refused(changed(6, 1, 4), {"entry at byte 0 of its directory is none"}));
}

TEST_F(ZipArchiveTest, RefusesMoreThanItWasTold) {
  // Every sum fits but what comes out does not.
  const std::string text(200'000, 'a');
  const ZipArchive more = open({{.name = "bomb", .data = text, .deflate = true, .said_bytes = 1000}});
  EXPECT_TRUE(throws_error([&] { more.read_whole(more.members()[0], 1000); }, ErrorKind::kWeights,
                           {path_, "expected 1000 bytes in 'bomb'; got more", "zip bomb"}));
  const ZipArchive less = open({{.name = "short", .data = text, .deflate = true, .said_bytes = 200'001}});
  EXPECT_TRUE(throws_error([&] { less.read_whole(less.members()[0], 200'001); }, ErrorKind::kWeights,
                           {path_, "'short'", "1 less"}));
}

}  // namespace
}  // namespace permafrost::testing
