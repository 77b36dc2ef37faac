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

TEST(Machine, ReadsWhenAProcessWasStarted) {
  const std::string rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
  EXPECT_EQ(start_of_stat("12 (name) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"), 4711);
  EXPECT_EQ(start_of_stat("12 (a (strange) name)" + rest), 4711);
  for (const char* none :
       {"", "12 name S 1", "12 (name) S 1 2", "12 (name) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"})
    EXPECT_EQ(start_of_stat(none), -1) << none;
}

TEST(Machine, KnowsHowLongTheProcessRuns) {
  const double before = seconds_since_process_start();
  EXPECT_GE(before, 0);
  EXPECT_LT(before, 3600);  // of a test
  EXPECT_GE(seconds_since_process_start(), before);
}

TEST(Machine, IsDescribed) { EXPECT_GE(usable_cores(), 1); }

}  // namespace
}  // namespace permafrost
