// The node backend and the hierarchy over processes; run by mpirun, every rank runs every test. Arguments:
//   windows   memory comes from MPI windows, as if the last rank could not open the others' memory
//   room      only that 256 MB are had, or refused with words, where /dev/shm is small: small_shm.sh
#include <gtest/gtest.h>

#include <iostream>
#include <thread>

#include "parallel/group/fail_together.h"
#include "parallel/group/hierarchical_group.h"
#include "tests/group/conformance.h"
#include "tests/support/compare.h"
#include "tests/support/count_allocations.h"

namespace permafrost {
namespace {

using testing::kHere;
using testing::Others;
MpiEnvironment* environment = nullptr;
bool force_windows = false;

NodeOptions node_options() {
  NodeOptions options;
  options.timeout = std::chrono::seconds(20);
  options.mpi = environment;
  const Group& world = environment->world();
  options.force_windows = force_windows && world.rank() == world.size() - 1;
  return options;
}

TEST(NodeOfProcesses, Conformance) {
  NodeGroup group(environment->world(), node_options());
  EXPECT_EQ(group.uses_windows(), force_windows && group.size() > 1);
  testing::check_collectives(group, Others::kTakePart);
  testing::check_streams(group, Others::kTakePart);
  testing::check_point_to_point(group);
  testing::check_argument_errors(group);
  testing::check_split(group);
}

TEST(NodeOfProcesses, ReadsInPlaceAndThroughTheScratch) {
  NodeGroup group(environment->world(), node_options());
  constexpr int64_t kElements = 400'001;
  SharedMemory memory = group.allocate("arenas", kElements * 8 * group.size());
  std::vector<int64_t> apart(kElements);
  const std::span<int64_t> shared(reinterpret_cast<int64_t*>(memory.data()) + group.rank() * kElements, kElements);
  for (const std::span<int64_t> mine : {shared, std::span(apart)}) {
    for (int64_t i = 0; i < kElements; ++i) mine[static_cast<size_t>(i)] = i * (group.rank() + 1);
    group.all_reduce(flat(mine), flat(mine), ReduceOp::kSum, kHere, "sum");
    const int64_t factor = group.size() * (group.size() + 1) / 2;
    int64_t wrong = 0;
    for (int64_t i = 0; i < kElements; ++i) wrong += mine[static_cast<size_t>(i)] != i * factor;
    EXPECT_EQ(wrong, 0);
  }
  group.barrier(kHere, "before the memory goes");
}

TEST(NodeOfProcesses, CallsAllocateNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted in this build";
  NodeGroup group(environment->world(), node_options());
  SharedMemory memory = group.allocate("arena", group.size() * 80'000);
  std::vector<int64_t> apart(static_cast<size_t>(group.size()) * 100'000);
  const auto all = std::span(apart);
  const auto part = all.subspan(static_cast<size_t>(group.rank()) * 100'000, 100'000);
  const auto few = all.first(static_cast<size_t>(group.size()));
  const std::span<int64_t> shared(reinterpret_cast<int64_t*>(memory.data()) + group.rank() * 10'000, 10'000);
  testing::register_counted_thread();
  testing::begin_counting_allocations(testing::CountedThreads::kRegistered);
  for (int i = 0; i < 5; ++i) {
    group.barrier(kHere, "b");
    group.all_gather(flat(part), flat(all), {}, kHere, "g");
    group.reduce_scatter(flat(all), flat(part), {}, ReduceOp::kSum, kHere, "r");
    group.all_reduce(flat(few), flat(few), ReduceOp::kMax, kHere, "a");
    group.all_reduce(flat(shared), flat(shared), ReduceOp::kSum, kHere, "s");
    group.broadcast(flat(all), 0, kHere, "c");
  }
  const testing::AllocationCount count = testing::end_counting_allocations();
  EXPECT_EQ(count.calls, 0) << count.bytes << " bytes";
}

/// While one lives, this process has two cores at most.
class TwoCores {
 public:
  TwoCores() {
    sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t two;
    CPU_ZERO(&two);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&two) < 2; ++cpu)
      if (CPU_ISSET(cpu, &before_)) CPU_SET(cpu, &two);
    sched_setaffinity(0, sizeof two, &two);
  }
  ~TwoCores() { sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_{};
};

/// Prints the time, which no test asserts: goal 100 us for 4 ranks. That ranks without a core each sleep instead of
/// spinning is asserted.
TEST(NodeOfProcesses, BarrierTime) {
  const TwoCores two;
  NodeOptions options = node_options();
  options.cores = 2;
  NodeGroup group(environment->world(), options);
  std::vector<double> times;
  for (int i = 0; i < 2000; ++i) {
    const auto start = std::chrono::steady_clock::now();
    group.barrier(kHere, "timed");
    times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::sort(times);
  if (group.rank() == 0)
    std::cout << "barrier of " << group.size() << " ranks on at most 2 cores: median " << times[1000] << " us, 99 % "
              << times[1980] << " us, " << group.sleeps() << " sleeps in 2000\n";
  EXPECT_LE(group.sleeps(), 4100) << "a wait may end early, but not often";
  if (group.size() > 2) {
    EXPECT_GT(group.sleeps(), 100) << "others need the cores";
  }
}

TEST(HierarchyOfProcesses, ConformanceOnPretendedNodes) {
  Group& world = environment->world();
  for (const int nodes : {1, 2, world.size()}) {
    if (world.size() % nodes != 0) continue;
    std::vector<int> node_of_rank;
    for (int r = 0; r < world.size(); ++r) node_of_rank.push_back(r / (world.size() / nodes));
    HierarchicalGroup group(world, node_of_rank, node_options());
    EXPECT_TRUE(group.regular());
    testing::check_collectives(group, Others::kTakePart);
    testing::check_point_to_point(group);
    testing::check_split(group);
  }
}

TEST(HierarchyOfProcesses, RanksOfThisMachineAreOneNode) {
  Group& world = environment->world();
  HierarchicalGroup group(world, find_nodes(world), node_options());
  EXPECT_EQ(group.nodes(), 1);
  EXPECT_EQ(group.node().size(), world.size());
}

/// 0 when 256 MB can be had and used by all.
int take_room(Group& world) {
  NodeGroup group(world, node_options());
  SharedMemory memory = group.allocate("weights", int64_t{256} << 20);
  if (group.rank() == 0) std::ranges::fill(std::span(memory.data(), static_cast<size_t>(memory.bytes())), std::byte{9});
  group.barrier(kHere, "filled");
  int64_t wrong = 0;
  for (int64_t i = 0; i < memory.bytes(); i += 4096) wrong += memory.data()[i] != std::byte{9};
  std::cout << "rank " << group.rank() << " sees 256 MB" << (group.uses_windows() ? " of a window" : "") << std::endl;
  return wrong != 0;
}

}  // namespace
}  // namespace permafrost

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  bool room = false;
  for (int i = 1; i < argc; ++i) {
    permafrost::force_windows = permafrost::force_windows || std::string(argv[i]) == "windows";
    room = room || std::string(argv[i]) == "room";
  }
  permafrost::MpiOptions options;
  options.timeout = std::chrono::seconds(20);
  const auto environment = permafrost::open_mpi(options);
  permafrost::environment = environment.get();
  return permafrost::fail_together(environment->world(), [&] {
    permafrost::Group& world = environment->world();
    int64_t failed = room ? permafrost::take_room(world) : RUN_ALL_TESTS();
    const permafrost::Tensor tensor = permafrost::flat(std::span(&failed, 1));
    world.all_reduce(tensor, tensor, permafrost::ReduceOp::kMax, permafrost::StreamView::caller(), "test result");
    if (failed) permafrost::fail(permafrost::ErrorKind::kInternal, "tests failed on at least one rank");
    environment->close();
  });
}
