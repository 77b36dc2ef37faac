#include "core/device/thread_pool.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>

#include "core/base/check.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(ThreadPool, RunsEveryBlockOnce) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t blocks : {0, 1, 2, 3, 7, 1000}) {
      std::vector<std::atomic<int>> counts(static_cast<size_t>(blocks));
      std::atomic<bool> thread_in_range{true};
      pool.run(blocks, [&](int64_t block, int thread) {
        ++counts[static_cast<size_t>(block)];
        if (thread < 0 || thread >= threads) thread_in_range = false;
      });
      for (const auto& count : counts) EXPECT_EQ(count, 1);
      EXPECT_TRUE(thread_in_range);
    }
  }
}

TEST(ThreadPool, AddsUpTheTimeOfRunsWhileAsked) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    int64_t nanoseconds = 0;
    const auto sleep = [](int64_t, int) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
    pool.time_runs(&nanoseconds);
    pool.run(1, sleep);
    EXPECT_GE(nanoseconds, 2'000'000);
    const int64_t once = nanoseconds;
    pool.run(3, sleep);
    EXPECT_GE(nanoseconds, once + (threads == 1 ? 6'000'000 : 2'000'000));
    pool.time_runs(nullptr);
    const int64_t twice = nanoseconds;
    pool.run(1, sleep);
    EXPECT_EQ(nanoseconds, twice);
  }
}

TEST(ThreadPool, NegativeBlocksAreNoBlocks) {
  ThreadPool pool(2);
  pool.run(-3, [](int64_t, int) { FAIL(); });
}

TEST(ThreadPool, OneThreadIsTheCaller) {
  ThreadPool pool(1);
  pool.run(3, [caller = std::this_thread::get_id()](int64_t, int thread) {
    EXPECT_EQ(thread, 0);
    EXPECT_EQ(std::this_thread::get_id(), caller);
  });
}

/// More threads than cores: each waits until all four are inside, so all four must really run at the same time.
TEST(ThreadPool, FourThreadsTakePartWhateverTheCores) {
  ThreadPool pool(4);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> inside{0};
    std::mutex mutex;
    std::set<int> threads;
    pool.run(4, [&](int64_t, int thread) {
      ++inside;
      while (inside < 4) std::this_thread::yield();
      const std::lock_guard lock(mutex);
      threads.insert(thread);
    });
    EXPECT_EQ(threads, (std::set<int>{0, 1, 2, 3}));
  }
}

TEST(ThreadPool, WritesAreSeenAfterwards) {
  ThreadPool pool(4);
  std::vector<int64_t> values(5000, 0);
  for (int round = 1; round <= 200; ++round) {
    pool.run(50, [&](int64_t block, int) {
      for (int64_t i = block * 100; i < (block + 1) * 100; ++i) values[static_cast<size_t>(i)] += i;
    });
    ASSERT_EQ(values[4999], 4999 * round);
    ASSERT_EQ(values[1], round);
  }
}

/// Workers that spin, workers that sleep, and the moment between the two.
TEST(ThreadPool, SurvivesPausesOfAnyLength) {
  ThreadPool pool(4);
  std::atomic<int64_t> total{0};
  for (int round = 0; round < 300; ++round) {
    pool.run(5, [&](int64_t block, int) { total += block; });
    if (round % 3 != 0) std::this_thread::sleep_for(std::chrono::microseconds(round % 50));
  }
  EXPECT_EQ(total, 300 * 10);
}

TEST(ThreadPool, FirstExceptionComesBackAndThePoolLives) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 20; ++round) {
      std::atomic<int64_t> ran{0};
      EXPECT_TRUE(throws_error(
          [&] {
            pool.run(100000, [&](int64_t block, int) {
              ++ran;
              if (block == 10) fail(ErrorKind::kNonFinite, "block ", block, " is not finite");
            });
          },
          ErrorKind::kNonFinite, {"block 10 is not finite"}));
      EXPECT_GE(ran, 11);
      int64_t after = 0;
      pool.run(1, [&](int64_t, int) { ++after; });
      EXPECT_EQ(after, 1);
    }
  }
}

TEST(ThreadPool, ExceptionsStopTheHandingOut) {
  ThreadPool pool(2);
  std::atomic<int64_t> ran{0};
  EXPECT_THROW(pool.run(int64_t{1} << 40,
                        [&](int64_t, int) {
                          ++ran;
                          throw std::runtime_error("stop");
                        }),
               std::runtime_error);
  EXPECT_LE(ran, 2);
}

TEST(ThreadPool, EveryThreadMayThrow) {
  ThreadPool pool(4);
  for (int round = 0; round < 50; ++round)
    EXPECT_TRUE(throws_error([&] { pool.run(8, [](int64_t block, int) { fail(ErrorKind::kData, "block ", block); }); },
                             ErrorKind::kData, {"block "}));
  std::atomic<int> calm{0};
  pool.run(8, [&](int64_t, int) { ++calm; });
  EXPECT_EQ(calm, 8);
}

TEST(ThreadPool, RefusesNoThreads) {
  for (const int threads : {0, -1})
    EXPECT_TRUE(throws_error([&] { ThreadPool pool(threads); }, ErrorKind::kInvalidArgument,
                             {"at least 1; got " + std::to_string(threads)}));
}

TEST(ThreadPool, PoolsStandSideBySide) {
  ThreadPool outer(2);
  std::atomic<int> total{0};
  outer.run(2, [&](int64_t, int) {
    ThreadPool inner(2);
    inner.run(10, [&](int64_t, int) { ++total; });
  });
  EXPECT_EQ(total, 20);
}

}  // namespace
}  // namespace permafrost::testing
