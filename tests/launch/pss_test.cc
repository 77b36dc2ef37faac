#include "launch/metrics/pss.h"

#include <cstring>
#include <vector>

#include "tests/support/compare.h"

namespace permafrost {
namespace {

TEST(Pss, IsReadFromTheKernelsText) {
  const ProcessMemory memory = memory_of_smaps(
      "55d0-7ffe ---p 00000000 00:00 0   [rollup]\nRss:   2000 kB\nPss:  1234 kB\nPss_Anon: 9 kB\n"
      "Shared_Clean: 7 kB\nPrivate_Clean: 11 kB\nPrivate_Dirty:  1000 kB\nPrivate_Hugetlb: 5 kB\n");
  EXPECT_EQ(memory.pss_bytes, 1234 * 1024);
  EXPECT_EQ(memory.uss_bytes, 1011 * 1024);
  EXPECT_EQ(memory_of_smaps("").pss_bytes, 0);
  EXPECT_EQ(memory_of_smaps("Pss: x kB\n").pss_bytes, 0);
}

TEST(Pss, GrowsByWhatIsTouched) {
  constexpr int64_t kBytes = 64 << 20;
  const int64_t before = pss_bytes();
  if (before == 0) GTEST_SKIP() << "this kernel has no smaps_rollup";
  std::vector<char> memory(static_cast<size_t>(kBytes));
  std::memset(memory.data(), 1, memory.size());
  EXPECT_GE(pss_bytes() - before, kBytes * 9 / 10);
  EXPECT_EQ(memory[kBytes / 2], 1);
}

}  // namespace
}  // namespace permafrost
