#include "launch/temporary_folder.h"

#include <fstream>

#include "tests/support/compare.h"

namespace permafrost {
namespace {

TEST(TemporaryFolder, GoesWithWhatIsInIt) {
  std::filesystem::path path;
  {
    const TemporaryFolder folder("test");
    path = folder.path();
    EXPECT_EQ(folder.file_bytes(), 0);
    std::filesystem::create_directories(path / "below");
    std::ofstream(path / "a") << "1234";
    std::ofstream(path / "below" / "b") << "123";
    EXPECT_EQ(folder.file_bytes(), 7);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace permafrost
