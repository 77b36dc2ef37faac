#include "parallel/group/nccl/nccl_library.h"

#include <dlfcn.h>

#include <filesystem>
#include <fstream>

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(NcclLibrary, AMissingFileSaysWhatToDo) {
  const NcclFound found = find_nccl("/nowhere/libnccl.so.2");
  EXPECT_EQ(found.version, "");
  for (const char* part : {"no usable libnccl.so.2, version 2.28.0 or later", "LD_LIBRARY_PATH",
                           "/nowhere/libnccl.so.2 does not load", "No such file"})
    EXPECT_NE(found.missing.find(part), std::string::npos) << found.missing;
}

TEST(NcclLibrary, AFileThatIsNoLibraryIsNamed) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "not_nccl.so";
  std::ofstream(path) << "text";
  EXPECT_NE(find_nccl(path).missing.find("not_nccl.so does not load"), std::string::npos);
  std::filesystem::remove(path);
}

TEST(NcclLibrary, AnotherLibraryLacksFunctions) {
  EXPECT_NE(find_nccl("libz.so.1").missing.find("libz.so.1 has no ncclGetVersion"), std::string::npos)
      << find_nccl("libz.so.1").missing;
}

TEST(NcclLibrary, TheRealOneSaysItsVersion) {
  const NcclFound& found = find_nccl();
  if (found.version.empty()) GTEST_SKIP() << found.missing;
  EXPECT_TRUE(found.version.starts_with("2.")) << found.version;
  EXPECT_TRUE(std::filesystem::exists(found.path)) << found.path;
  EXPECT_EQ(find_nccl(found.path).version, found.version);
}

}  // namespace
}  // namespace permafrost::testing
