#include "launch/runtime.h"

#include <glog/logging.h>

#include "tests/support/compare.h"

namespace permafrost {
namespace {

TEST(Runtime, ThreadsAreAShareOfTheCores) {
  EXPECT_EQ(threads_per_rank(0, 8, 1), 8);
  EXPECT_EQ(threads_per_rank(0, 8, 3), 2);
  EXPECT_EQ(threads_per_rank(0, 2, 4), 1) << "more ranks than cores";
  EXPECT_EQ(threads_per_rank(5, 2, 4), 5) << "what the user asks for";
}

TEST(Runtime, RanksOfAMachineAreANodeUnlessItIsDivided) {
  EXPECT_EQ(divide_machines({7, 7, 9, 7, 9}, 0), (std::vector<int>{0, 0, 1, 0, 1}));
  EXPECT_EQ(divide_machines({7, 7, 7, 7, 7}, 2), (std::vector<int>{0, 0, 1, 1, 2}));
  EXPECT_EQ(divide_machines({7, 9, 7, 9, 7}, 2), (std::vector<int>{0, 1, 0, 1, 2}));
  EXPECT_EQ(divide_machines({7, 7}, 5), (std::vector<int>{0, 0}));
  EXPECT_EQ(divide_machines({7}, 1), (std::vector<int>{0}));
}

TEST(Runtime, OneRankNeedsNoLauncher) {
  RuntimeOptions options;
  options.threads = 2;
  bool ran = false;
  EXPECT_EQ(run_ranks({}, options,
                      [&](Runtime& runtime) {
                        ran = true;
                        EXPECT_TRUE(runtime.first());
                        EXPECT_EQ(runtime.size(), 1);
                        EXPECT_EQ(runtime.place.ranks, 1);
                        EXPECT_EQ(runtime.place.nodes, 1);
                        EXPECT_EQ(runtime.place.threads, 2);
                        EXPECT_EQ(runtime.mpi, "");
                        EXPECT_EQ(runtime.pool.threads(), 2);
                        EXPECT_EQ(runtime.context().pool, &runtime.pool);
                      }),
            0);
  EXPECT_TRUE(ran);
}

TEST(Runtime, AnErrorOfTheBodyIsItsExitCode) {
  for (const ErrorKind kind :
       {ErrorKind::kConfig, ErrorKind::kWeights, ErrorKind::kData, ErrorKind::kStorage, ErrorKind::kNonFinite,
        ErrorKind::kPeer, ErrorKind::kNotBuilt, ErrorKind::kStopped, ErrorKind::kInternal}) {
    FLAGS_minloglevel = google::GLOG_WARNING;  // as the program does unless asked otherwise
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(run_ranks({}, {}, [&](Runtime&) { fail(kind, "op: expected this; got that"); }), exit_code(kind));
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "permafrost: rank 0/1: op: expected this; got that\n");
  }
}

}  // namespace
}  // namespace permafrost
