#include "launch/metrics/output_file.h"

#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {
using testing::throws_error;

TEST(OutputFile, AppendsAndIsReadableAtOnce) {
  const ScratchFolder folder;
  const auto path = folder / "out";
  OutputFile file(path);
  file.append("one\n");
  EXPECT_EQ(read_file(path), "one\n");
  OutputFile(path).append("two\n");
  file.append("three\n");
  EXPECT_EQ(read_file(path), "one\ntwo\nthree\n");
}

TEST(OutputFile, AFullDiskIsAnErrorThatNamesTheFile) {
  OutputFile full("/dev/full");
  EXPECT_TRUE(throws_error([&] { full.append("x"); }, ErrorKind::kStorage,
                           {"cannot append 1 bytes to /dev/full", "No space left"}));
}

TEST(OutputFile, APathThatCannotBeOpenedIsNamed) {
  const ScratchFolder folder;
  EXPECT_TRUE(throws_error([&] { OutputFile file(folder.path()); }, ErrorKind::kStorage,
                           {folder.path().string(), "Is a directory"}));
}

}  // namespace
}  // namespace permafrost
