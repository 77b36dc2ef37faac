// The node backend with threads for ranks: they open each other's memory as processes do. node_mpi_test.cc has
// processes.
#include "parallel/group/node/node_group.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <fstream>
#include <limits>
#include <thread>

#include "parallel/group/inproc_group.h"
#include "parallel/group/node/free_memory.h"
#include "tests/group/conformance.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::kHere;
using testing::Others;
using testing::throws_error;

void run_node(int ranks, const std::function<void(NodeGroup&)>& body, NodeOptions options = {}) {
  options.timeout = std::min(options.timeout, std::chrono::milliseconds(20'000));
  run_inproc(ranks, [&](Group& bootstrap) {
    NodeGroup group(bootstrap, options);
    body(group);
    bootstrap.barrier(kHere, "end of test");
  });
}

class NodeGroupTest : public ::testing::TestWithParam<int> {};

TEST_P(NodeGroupTest, Collectives) {
  run_node(GetParam(), [](NodeGroup& group) { testing::check_collectives(group, Others::kTakePart); });
}
TEST_P(NodeGroupTest, Streams) {
  run_node(GetParam(), [](NodeGroup& group) { testing::check_streams(group, Others::kTakePart); });
}
TEST_P(NodeGroupTest, PointToPoint) {
  run_node(GetParam(), [](NodeGroup& group) { testing::check_point_to_point(group); });
}
TEST_P(NodeGroupTest, Split) {
  run_node(GetParam(), [](NodeGroup& group) { testing::check_split(group); });
}
TEST_P(NodeGroupTest, ArgumentErrors) {
  run_node(GetParam(), [](NodeGroup& group) { testing::check_argument_errors(group); });
}
TEST_P(NodeGroupTest, MovedBytes) {
  run_inproc(GetParam(), [](Group& bootstrap) {
    MovedBytes moved;
    NodeOptions options;
    options.moved = &moved;
    NodeGroup group(bootstrap, options);
    testing::check_moved_bytes(group, moved, testing::MovedClosedForm::kFlat);
    const auto part = group.split(0, group.rank(), "same order");
    testing::check_moved_bytes(*part, moved, testing::MovedClosedForm::kFlat);
  });
}

double value(int rank, int64_t i) { return 1e16 / (rank + 1) + static_cast<double>(i * (rank + 3) % 1013); }

/// Which ranks keep their tensor in shared memory.
enum class Where { kAll, kNone, kEven };

/// Uneven parts of up to 3 MB, one of them empty: several pieces of scratch, and sums that depend on their order.
void check_long(NodeGroup& group, Where where, bool in_place) {
  std::vector<int64_t> counts;
  for (int r = 0; r < group.size(); ++r) counts.push_back(r == 1 ? 0 : 190'001 + 977 * r);
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  const int64_t own = counts[static_cast<size_t>(group.rank())];
  int64_t begin = 0;
  for (int r = 0; r < group.rank(); ++r) begin += counts[static_cast<size_t>(r)];
  // All ranks' tensors in one piece, as arenas are.
  SharedMemory shared = group.allocate("arenas", group.size() * total * 8);
  std::vector<double> own_memory(static_cast<size_t>(total));
  const bool registered = where == Where::kAll || (where == Where::kEven && group.rank() % 2 == 0);
  double* data = registered ? reinterpret_cast<double*>(shared.data()) + group.rank() * total : own_memory.data();
  const std::span<double> all(data, static_cast<size_t>(total));
  std::vector<double> apart(static_cast<size_t>(own));
  const std::span<double> part = in_place ? all.subspan(static_cast<size_t>(begin), apart.size()) : std::span(apart);

  for (int64_t i = 0; i < total; ++i) all[static_cast<size_t>(i)] = value(group.rank(), i);
  group.reduce_scatter(flat(all), flat(part), counts, ReduceOp::kSum, kHere, "long");
  const auto sum = [&](int64_t i) {
    double want = value(0, i);
    for (int r = 1; r < group.size(); ++r) want += value(r, i);
    return want;
  };
  int64_t wrong = 0;
  for (int64_t i = 0; i < own; ++i) wrong += !(part[static_cast<size_t>(i)] == sum(begin + i));
  EXPECT_EQ(wrong, 0) << "reduce_scatter";

  group.all_gather(flat(part), flat(all), counts, kHere, "long");
  wrong = 0;
  for (int64_t i = 0; i < total; ++i) wrong += !(all[static_cast<size_t>(i)] == sum(i));
  EXPECT_EQ(wrong, 0) << "all_gather";

  for (int64_t i = 0; i < total; ++i) all[static_cast<size_t>(i)] = value(group.rank(), i);
  group.all_reduce(flat(all), flat(all), ReduceOp::kSum, kHere, "long");
  wrong = 0;
  for (int64_t i = 0; i < total; ++i) wrong += !(all[static_cast<size_t>(i)] == sum(i));
  EXPECT_EQ(wrong, 0) << "all_reduce";

  const int root = group.size() - 1;
  for (int64_t i = 0; i < total; ++i) all[static_cast<size_t>(i)] = value(group.rank(), i);
  group.broadcast(flat(all), root, kHere, "long");
  wrong = 0;
  for (int64_t i = 0; i < total; ++i) wrong += !(all[static_cast<size_t>(i)] == value(root, i));
  EXPECT_EQ(wrong, 0) << "broadcast";
  if (group.size() > 1 && group.rank() < 2) {
    if (group.rank() == 1) std::ranges::fill(all, 0.0);
    const Event event =
        group.rank() == 0 ? group.send(flat(all), 1, kHere, "long") : group.recv(flat(all), 0, kHere, "long");
    wrong = 0;
    for (int64_t i = 0; i < total; ++i) wrong += !(all[static_cast<size_t>(i)] == value(root, i));
    EXPECT_EQ(wrong, 0) << "send and recv";
  }
  group.barrier(kHere, "before the memory goes");
}

TEST_P(NodeGroupTest, LongTensorsInSharedMemoryOrNot) {
  for (const Where where : {Where::kAll, Where::kNone, Where::kEven})
    for (const bool in_place : {true, false})
      run_node(GetParam(), [&](NodeGroup& group) { check_long(group, where, in_place); });
}
/// Gives threads the same addresses, as no two processes have them: the thread sanitizer, which goes by address, then
/// sees who reads what whom wrote.
class OneAddressSpace final : public MpiEnvironment {
 public:
  std::byte* allocate_shared(Group& group, std::string_view name, int64_t bytes) override {
    int64_t address = 0;
    if (group.rank() == 0) {
      const std::lock_guard lock(mutex_);
      address = reinterpret_cast<int64_t>(pieces_.emplace_back(std::string(name), bytes).data());
    }
    group.broadcast(flat(std::span(&address, 1)), 0, kHere, "address");
    return reinterpret_cast<std::byte*>(address);
  }
  Group& world() override { fail(ErrorKind::kInternal, "no world here"); }
  std::string library_version() const override { return "threads"; }
  std::unique_ptr<Group> plain() override { fail(ErrorKind::kInternal, "no MPI here"); }
  void close() override {}

 private:
  std::mutex mutex_;
  std::deque<Buffer> pieces_;
};

TEST_P(NodeGroupTest, InOneAddressSpace) {
  OneAddressSpace memory;
  NodeOptions options;
  options.mpi = &memory;
  options.force_windows = true;
  run_node(
      GetParam(),
      [](NodeGroup& group) {
        EXPECT_EQ(group.uses_windows(), group.size() > 1);
        testing::check_collectives(group, Others::kTakePart);
        testing::check_point_to_point(group);
        testing::check_split(group);
        for (const Where where : {Where::kAll, Where::kNone, Where::kEven}) check_long(group, where, true);
      },
      options);
}
INSTANTIATE_TEST_SUITE_P(Ranks, NodeGroupTest, ::testing::Values(1, 2, 3, 4));

TEST(NodeGroup, MemoryIsSeenByAllRanksAlignedAndZero) {
  run_node(3, [](NodeGroup& group) {
    for (const int64_t bytes : {int64_t{5}, int64_t{3} << 20}) {
      SharedMemory memory = group.allocate("weights", bytes);
      EXPECT_EQ(memory.bytes(), bytes);
      EXPECT_EQ(memory.name(), "weights");
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % (bytes < (2 << 20) ? 4096 : 2 << 20), 0u);
      EXPECT_EQ(memory.data()[bytes - 1], std::byte{0});
      group.barrier(kHere, "looked");
      if (group.rank() == 1) memory.data()[bytes - 1] = std::byte{77};
      group.barrier(kHere, "written");
      EXPECT_EQ(memory.data()[bytes - 1], std::byte{77});
      EXPECT_EQ(memory.data()[bytes - 1], std::byte{77});
      SharedMemory moved = std::move(memory);
      EXPECT_EQ(memory.data(), nullptr);  // NOLINT: what a moved-from one holds is the question
      EXPECT_EQ(moved.data()[bytes - 1], std::byte{77});
      group.barrier(kHere, "read");
    }
    EXPECT_EQ(group.allocate("nothing", 0).bytes(), 0);
  });
}

TEST(NodeGroup, MemoryOfAGroupOfOneIsPrivate) {
  run_node(1, [](NodeGroup& group) {
    SharedMemory memory = group.allocate("alone", 100);
    memory.data()[99] = std::byte{1};
    memory.protect();
    EXPECT_EQ(memory.data()[99], std::byte{1});
  });
}

TEST(NodeGroupDeathTest, AProtectedPieceIsNotWritten) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(run_node(2,
                        [](NodeGroup& group) {
                          SharedMemory memory = group.allocate("frozen", 4096);
                          if (group.rank() == 0) memory.data()[0] = std::byte{1};
                          memory.protect();
                          memory.data()[0] = std::byte{2};
                        }),
               "");
}

TEST(NodeGroup, TooMuchMemoryIsRefusedOnAllRanksWithNumbers) {
  std::atomic<int> refused = 0;
  run_node(3, [&](NodeGroup& group) {
    if (throws_error([&] { group.allocate("weights", int64_t{1} << 50); }, ErrorKind::kStorage,
                     {"node memory 'weights'", "1125899906842624 bytes needed; got ", " available"}))
      ++refused;
    EXPECT_FALSE(group.async_error().has_value());
    EXPECT_EQ(group.allocate("less", 4096).bytes(), 4096);
  });
  EXPECT_EQ(refused, 3);
  run_node(1, [&](NodeGroup& group) {
    EXPECT_TRUE(throws_error([&] { group.allocate("w", int64_t{1} << 50); }, ErrorKind::kStorage, {"bytes needed"}));
  });
}

TEST(NodeGroup, RanksMustAskForTheSameSize) {
  run_node(2, [](NodeGroup& group) {
    EXPECT_TRUE(throws_error([&] { group.allocate("x", 100 + group.rank()); }, ErrorKind::kInvalidArgument,
                             {"as many bytes", "100 on rank 0 and 101 on rank 1"}));
    EXPECT_TRUE(throws_error([&] { group.allocate("x", -1); }, ErrorKind::kInvalidArgument, {"negative; got -1"}));
  });
}

TEST(NodeGroup, OneRankThatCannotOpenTheMemoryIsNamed) {
  EXPECT_TRUE(throws_error(
      [] {
        run_inproc(3, [](Group& bootstrap) {
          NodeOptions options;
          options.force_windows = bootstrap.rank() == 2;
          NodeGroup group(bootstrap, options);
        });
      },
      ErrorKind::kStorage, {"through /proc/", "Permission denied", "on rank 2", "no MPI windows"}));
}

TEST(NodeGroup, AnotherFileUnderTheNumberIsNotTaken) {
  const int file = make_memory_file("one", 4096);
  const int other = open_memory_file(getpid(), file, inode_of(file) + 1);
  EXPECT_EQ(other, -1);
  const int same = open_memory_file(getpid(), file, inode_of(file));
  EXPECT_EQ(inode_of(same), inode_of(file));
  close(same);
  close(file);
}

TEST(NodeGroup, AMemoryFileHasItsPages) {
  const int file = make_memory_file("taken", 1 << 20);
  struct stat status = {};
  ASSERT_EQ(fstat(file, &status), 0);
  EXPECT_EQ(status.st_blocks * 512, 1 << 20);
  close(file);
}

TEST(NodeGroupDeathTest, ASoftLimitOnFileSizesDoesNotBindMemoryAndAHardOneIsNamed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto with_limit = [](bool hard) {
    rlimit limit{};
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 1 << 20;
    if (hard) limit.rlim_max = 1 << 20;
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      const int file = make_memory_file("weights", 8 << 20);
      rlimit after{};
      getrlimit(RLIMIT_FSIZE, &after);
      std::exit(file >= 0 && after.rlim_cur == 1 << 20 ? 0 : 1);
    } catch (const Error& error) {
      std::fputs(error.what(), stderr);
      std::exit(exit_code(error.kind()));
    }
  };
  EXPECT_EXIT(with_limit(false), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(with_limit(true), ::testing::ExitedWithCode(exit_code(ErrorKind::kStorage)),
              "node memory 'weights': 8388608 bytes needed; got a limit of 1048576 bytes for files");
}

TEST(NodeGroup, DifferentCallsAreNoticed) {
  EXPECT_TRUE(throws_error(
      [] {
        run_node(2, [](NodeGroup& group) {
          std::vector<int32_t> x(2);
          const Tensor tensor = flat(std::span(x));
          group.all_reduce(tensor, tensor, group.rank() == 0 ? ReduceOp::kSum : ReduceOp::kMax, kHere, "a");
        });
      },
      ErrorKind::kPeer, {"same call", "all_reduce 'a' of 2 i32"}));
}

TEST(NodeGroup, SendAndRecvMustAgree) {
  EXPECT_TRUE(throws_error(
      [] {
        run_node(2, [](NodeGroup& group) {
          std::vector<int32_t> x(5);
          if (group.rank() == 0)
            group.send(flat(std::span(x)), 1, kHere, "row");
          else
            group.recv(flat(std::span(x).first(4)), 0, kHere, "row");
        });
      },
      ErrorKind::kPeer, {"send and recv must agree; got 5 elements of i32 from rank 0", "recv 'row' of 4 i32"}));
}

TEST(NodeGroup, TimeLimitNamesTheCallAndTheMissingRanks) {
  NodeOptions options;
  options.timeout = std::chrono::milliseconds(50);
  std::atomic<int> broken = 0;
  EXPECT_TRUE(throws_error(
      [&] {
        run_inproc(4, [&](Group& bootstrap) {
          NodeGroup group(bootstrap, options);
          std::vector<float> x(4);
          if (group.rank() % 2 == 1) return bootstrap.barrier(kHere, "never").wait();
          const auto call = [&] {
            group.all_reduce(flat(std::span(x)), flat(std::span(x)), ReduceOp::kSum, kHere, "g");
          };
          try {
            call();
          } catch (const Error& error) {
            if (group.async_error().has_value() && throws_error(call, error.kind(), {})) ++broken;
            throw;
          }
        });
      },
      ErrorKind::kTimeout, {"all_reduce 'g'", "within 50 ms", "missing rank 1 3"}));
  EXPECT_EQ(broken, 2);
}

TEST(NodeGroup, ReceiveWithoutSenderTimesOut) {
  NodeOptions options;
  options.timeout = std::chrono::milliseconds(30);
  EXPECT_TRUE(throws_error(
      [&] {
        run_node(
            2,
            [](NodeGroup& group) {
              float x = 0;
              if (group.rank() == 0) group.recv(flat(std::span(&x, 1)), 1, kHere, "row");
            },
            options);
      },
      ErrorKind::kTimeout, {"recv 'row'", "missing rank 1"}));
}

TEST(NodeGroup, RanksThatWaitAreReleasedWithTheFailingRanksReason) {
  std::atomic<int> told = 0;
  const auto body = [&](NodeGroup& group) {
    if (group.rank() == 1) fail(ErrorKind::kNonFinite, "loss: must be finite; got nan");
    try {
      group.barrier(kHere, "step 3");
    } catch (const Error& error) {
      if (std::string(error.what()) == "rank 1/3 failed: loss: must be finite; got nan") ++told;
      throw;
    }
  };
  EXPECT_TRUE(throws_error([&] { run_node(3, body); }, ErrorKind::kNonFinite, {"loss: must be finite"}));
  EXPECT_EQ(told, 2);
}

TEST(NodeGroup, ASplitReadsItsParentsMemoryInPlace) {
  run_node(4, [](NodeGroup& group) {
    constexpr int64_t kElements = 100'000;
    SharedMemory memory = group.allocate("arena", 4 * kElements * 8);
    auto* arena = reinterpret_cast<int64_t*>(memory.data());
    const auto pair = group.split(group.rank() / 2, -group.rank(), "pairs");
    const std::span<int64_t> mine(arena + group.rank() * kElements, kElements);
    std::ranges::fill(mine, group.rank() + 1);
    std::vector<int64_t> sum(kElements);
    pair->all_reduce(flat(mine), flat(std::span(sum)), ReduceOp::kSum, kHere, "pair");
    const int64_t want = group.rank() < 2 ? 3 : 7;
    EXPECT_EQ(std::ranges::count(sum, want), kElements);
    group.barrier(kHere, "end");
  });
}

TEST(NodeGroup, LateRanksLetOthersSleep) {
  std::atomic<int64_t> sleeps = 0;
  run_node(2, [&](NodeGroup& group) {
    if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    group.barrier(kHere, "late");
    if (group.rank() == 0) sleeps = group.sleeps();
  });
  EXPECT_GT(sleeps, 0);
}

TEST(NodeGroup, NaNWinsAndIntegersWrap) {
  run_node(3, [&](NodeGroup& group) {
    for (const int64_t elements : {1, 40'000}) {
      std::vector<double> x(static_cast<size_t>(elements),
                            group.rank() == 1 ? std::numeric_limits<double>::quiet_NaN() : 1.0);
      group.all_reduce(flat(std::span(x)), flat(std::span(x)), ReduceOp::kMax, kHere, "nan");
      EXPECT_TRUE(x.back() != x.back());
      std::vector<int64_t> y(static_cast<size_t>(elements), std::numeric_limits<int64_t>::max());
      group.all_reduce(flat(std::span(y)), flat(std::span(y)), ReduceOp::kSum, kHere, "wrap");
      EXPECT_EQ(y.back(), std::numeric_limits<int64_t>::max() - 2);
    }
  });
}

class FreeMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::path(::testing::TempDir()) / "free_memory_test";
    std::filesystem::remove_all(root_);
    write("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable:    4000 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::filesystem::path root_;
};

TEST_F(FreeMemoryTest, IsWhatTheMachineHas) {
  EXPECT_EQ(free_memory_bytes(root_), 4000 * 1024);
  EXPECT_EQ(free_memory_bytes(root_ / "nowhere"), std::numeric_limits<int64_t>::max());
  EXPECT_GT(free_memory_bytes(), 0);
}

TEST_F(FreeMemoryTest, IsWhatTheTightestControlGroupLeaves) {
  write("proc/self/cgroup", "0::/job/step\n");
  write("sys/fs/cgroup/job/step/memory.max", "max\n");
  write("sys/fs/cgroup/job/memory.max", "1000000\n");
  write("sys/fs/cgroup/job/memory.current", "900000\n");
  write("sys/fs/cgroup/job/memory.stat", "anon 7\ninactive_file 50000\n");
  EXPECT_EQ(free_memory_bytes(root_), 150'000);
  write("sys/fs/cgroup/job/memory.current", "2000000\n");
  EXPECT_EQ(free_memory_bytes(root_), 0);
}

TEST_F(FreeMemoryTest, TheLimitIsTheTightestOfAllControlGroupsAndTheMachine) {
  EXPECT_EQ(memory_limit_bytes(root_), 8000 * 1024);
  write("proc/self/cgroup", "0::/job/step\n5:memory:/box\n");
  write("sys/fs/cgroup/job/step/memory.max", "7000000\n");
  write("sys/fs/cgroup/job/step/memory.current", "6000000\n");
  EXPECT_EQ(memory_limit_bytes(root_), 7'000'000) << "whatever is used";
  write("sys/fs/cgroup/job/memory.max", "6500000\n");
  EXPECT_EQ(memory_limit_bytes(root_), 6'500'000);
  write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "3000000\n");
  EXPECT_EQ(memory_limit_bytes(root_), 3'000'000);
}

TEST_F(FreeMemoryTest, KnowsTheFirstVersionOfControlGroups) {
  write("proc/self/cgroup", "5:memory:/box\n");
  write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "3000000\n");
  write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "1000000\n");
  EXPECT_EQ(free_memory_bytes(root_), 2'000'000);
}

}  // namespace
}  // namespace permafrost
