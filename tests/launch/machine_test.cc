#include "launch/machine.h"

#include "tests/support/compare.h"

namespace permafrost {
namespace {

TEST(Machine, ReadsLimitsOfControlGroups) {
  EXPECT_EQ(cores_of_cpu_max("200000 100000"), 2);
  EXPECT_EQ(cores_of_cpu_max("150000 100000"), 2);
  EXPECT_EQ(cores_of_cpu_max("50000 100000"), 1);
  for (const char* none : {"max 100000", "-1 100000", "", "x", "100000", "100000 0"})
    EXPECT_EQ(cores_of_cpu_max(none), 0) << none;
}

TEST(Machine, IsDescribed) {
  EXPECT_GE(usable_cores(), 1);
}

}  // namespace
}  // namespace permafrost
