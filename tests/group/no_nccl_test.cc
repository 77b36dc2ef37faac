#include "core/device/cuda.h"
#include "parallel/group/inproc_group.h"
#include "parallel/group/nccl/nccl_group.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

// Linked as the program itself is, in a build without CUDA or without nccl.h.
TEST(NoNccl, SaysWhatIsMissing) {
  EXPECT_FALSE(nccl_built());
  EXPECT_EQ(find_nccl().version, "");
  const std::string expected = cuda::built() ? "nccl.h" : "preset cuda";
  EXPECT_NE(find_nccl().missing.find(expected), std::string::npos) << find_nccl().missing;
  EXPECT_EQ(find_nccl("/anywhere").missing, find_nccl().missing);
  EXPECT_TRUE(
      throws_error([] { nccl_memory("arena", 1, Device::cuda(0)); }, ErrorKind::kNotBuilt, {"Buffer arena", expected}));
  const auto group = make_solo_group();
  Stream stream(Device::cpu());
  EXPECT_TRUE(throws_error([&] { make_nccl_group(*group, stream); }, ErrorKind::kNotBuilt, {"nccl", expected}));
}

TEST(NoNccl, IsAReasonNotToUseIt) {
  run_inproc(2, [](Group& group) {
    GpuFacts facts;
    facts.nccl_missing = find_nccl().missing;
    facts.uuid = concat("GPU-", group.rank());
    const auto why = why_no_nccl(group, facts);
    ASSERT_TRUE(why.has_value());
    EXPECT_EQ(*why, "rank 0: " + find_nccl().missing);
  });
  EXPECT_FALSE(why_no_nccl(*make_solo_group(), Device::cuda(0), "").has_value());  // one rank needs none
}

}  // namespace
}  // namespace permafrost::testing
