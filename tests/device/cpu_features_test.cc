#include "core/device/cpu_features.h"

#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(CpuFeatures, NamesThosePresent) {
  EXPECT_EQ(to_string(CpuFeatures{}), "none");
  EXPECT_EQ(to_string(CpuFeatures{true, false, false, false}), "avx2");
  EXPECT_EQ(to_string(CpuFeatures{true, true, true, true}), "avx2 avx512 avx512_bf16 amx_bf16");
}

TEST(CpuFeatures, AgreesWithTheKernel) {
  std::ifstream in("/proc/cpuinfo");
  std::string line, flags;
  while (std::getline(in, line))
    if (line.starts_with("flags")) flags = line;
  if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo lists no flags";
  std::istringstream words(flags);
  const std::set<std::string> present{std::istream_iterator<std::string>(words), {}};
  const auto has = [&](const char* flag) { return present.contains(flag); };
  const CpuFeatures& features = cpu_features();
  EXPECT_EQ(features.avx2, has("avx2") && has("fma") && has("f16c"));
  EXPECT_EQ(features.avx512, features.avx2 && has("avx512f") && has("avx512bw") && has("avx512vl") && has("avx512dq"));
  EXPECT_EQ(features.avx512_bf16, features.avx512 && has("avx512_bf16"));
  EXPECT_TRUE(!features.amx_bf16 || (has("amx_tile") && has("amx_bf16")));
  EXPECT_EQ(&cpu_features(), &features);
}

}  // namespace
}  // namespace permafrost::testing
