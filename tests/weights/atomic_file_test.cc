#include "core/weights/atomic_file.h"

#include <unistd.h>

#include "tests/support/file_size_limit.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

TEST(AtomicFile, AppearsOnlyWhenCommitted) {
  const ScratchFolder folder;
  const std::string path = folder / "a.txt";
  {
    AtomicFile file(path);
    file.write("hello ", 6);
    file.write("world", 5);
    EXPECT_EQ(file.written_bytes(), 11);
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_EQ(folder.files(), 1u);  // the temporary one
    file.commit();
  }
  EXPECT_EQ(read_text(path), "hello world");
  EXPECT_EQ(folder.files(), 1u);
}

TEST(AtomicFile, LeavesOldFileAndNoLitterWithoutCommit) {
  const ScratchFolder folder;
  const std::string path = folder / "a.txt";
  write_file_atomically(path, "old");
  { AtomicFile(path).write("half of the new", 15); }
  EXPECT_EQ(read_text(path), "old");
  EXPECT_EQ(folder.files(), 1u);
  write_file_atomically(path, "new");
  EXPECT_EQ(read_text(path), "new");
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMix) {
  const ScratchFolder folder;
  AtomicFile first(folder / "a"), second(folder / "a");
  first.write("first", 5);
  second.write("second", 6);
  second.commit();
  first.commit();
  EXPECT_EQ(read_text(folder / "a"), "first");
}

TEST(AtomicFile, FullDiskKeepsPreviousFile) {
  const ScratchFolder folder;
  const std::string path = folder / "checkpoint";
  write_file_atomically(path, "previous");
  const std::string big(1 << 20, 'x');
  {
    const FileSizeLimit limit(1 << 16);
    EXPECT_TRUE(throws_error([&] { write_file_atomically(path, big); }, ErrorKind::kStorage,
                             {"cannot write", path, "File too large"}));
  }
  EXPECT_EQ(read_text(path), "previous");
  EXPECT_EQ(folder.files(), 1u);
}

TEST(AtomicFile, NamesPathAndReason) {
  const ScratchFolder folder;
  EXPECT_TRUE(throws_error([&] { AtomicFile file(folder / "no/such/a"); }, ErrorKind::kStorage,
                           {"cannot create", "no/such/a.tmp-", "No such file"}));
  std::filesystem::create_directory(folder / "taken");
  write_text(folder / "taken/inside", "x");
  EXPECT_TRUE(throws_error([&] { write_file_atomically(folder / "taken", "y"); }, ErrorKind::kStorage,
                           {"cannot rename", folder / "taken"}));
  EXPECT_EQ(folder.files(), 1u);
  EXPECT_TRUE(throws_error([&] { sync_directory(folder / "none"); }, ErrorKind::kStorage, {"none", "No such file"}));
}

TEST(AtomicFile, RefusesUseAfterCommit) {
  const ScratchFolder folder;
  AtomicFile file(folder / "a");
  file.commit();
  EXPECT_TRUE(throws_error([&] { file.write("x", 1); }, ErrorKind::kInvalidArgument, {"already committed"}));
  EXPECT_TRUE(throws_error([&] { file.commit(); }, ErrorKind::kInvalidArgument, {"already committed"}));
}

TEST(FreeSpace, RefusesWithBothNumbers) {
  const ScratchFolder folder;
  require_free_space(folder.path(), 1);
  const int64_t much = int64_t{1} << 60;
  EXPECT_TRUE(throws_error([&] { require_free_space(folder.path(), much); }, ErrorKind::kStorage,
                           {"not enough room", folder.path(), "expected 1152921504606846976", "got "}));
  EXPECT_TRUE(
      throws_error([&] { require_free_space(folder / "none", 1); }, ErrorKind::kStorage, {"none", "No such file"}));
}

TEST(DirectoryOf, TakesTheFolderPart) {
  EXPECT_EQ(directory_of("a/b"), "a");
  EXPECT_EQ(directory_of("/a"), "/");
  EXPECT_EQ(directory_of("a"), ".");
}

}  // namespace
}  // namespace permafrost::testing
