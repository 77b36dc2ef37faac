#include "parallel/group/mpi_loader.h"

#include <filesystem>
#include <fstream>

#include "parallel/group/fail_together.h"
#include "parallel/group/inproc_group.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::throws_error;

TEST(MpiLoader, AMissingLibraryNamesTheOption) {
  MpiOptions options;
  options.library = "/nowhere/libpermafrost_mpi.so";
  EXPECT_TRUE(throws_error([&] { open_mpi(options); }, ErrorKind::kNotBuilt,
                           {"-DPERMAFROST_MPI=ON", "no /nowhere/libpermafrost_mpi.so"}));
}

TEST(MpiLoader, ALibraryThatDoesNotLoadIsNotBuilt) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "not_a_library.so";
  std::ofstream(path) << "text";
  MpiOptions options;
  options.library = path;
  EXPECT_TRUE(throws_error([&] { open_mpi(options); }, ErrorKind::kNotBuilt, {"does not load", "not_a_library.so"}));
  std::filesystem::remove(path);
}

TEST(FailTogether, GivesTheExitCodeOfTheKind) {
  const auto group = make_solo_group();
  EXPECT_EQ(fail_together(*group, [] {}), 0);
  EXPECT_EQ(fail_together(*group, [] { fail(ErrorKind::kWeights, "w"); }), 3);
  ASSERT_TRUE(group->async_error().has_value());
  EXPECT_STREQ(group->async_error()->what(), "rank 0/1 failed: w");
  const auto other = make_solo_group();
  EXPECT_EQ(fail_together(*other, [] { throw std::runtime_error("bug"); }), 70);
  EXPECT_EQ(failure_line(1, 3, Error(ErrorKind::kData, "x: y")), "permafrost: rank 1/3: x: y");
}

}  // namespace
}  // namespace permafrost
