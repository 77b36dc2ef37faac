// Run by mpirun: every rank runs every test, and the results are merged so that all ranks agree on the exit code.
#include <gtest/gtest.h>

#include <cstdio>

#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"
#include "tests/group/conformance.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::kHere;
using testing::Others;
MpiEnvironment* environment = nullptr;
MovedBytes moved;

TEST(MpiGroup, Collectives) { testing::check_collectives(environment->world(), Others::kTakePart); }
TEST(MpiGroup, Streams) { testing::check_streams(environment->world(), Others::kTakePart); }
TEST(MpiGroup, PointToPoint) { testing::check_point_to_point(environment->world()); }
TEST(MpiGroup, Split) { testing::check_split(environment->world()); }
TEST(MpiGroup, ArgumentErrors) { testing::check_argument_errors(environment->world()); }

TEST(MpiGroup, MovedBytes) { testing::check_moved_bytes(environment->world(), moved, testing::MovedClosedForm::kFlat); }

TEST(MpiGroup, LongReductionsUseManyBlocksAndStayInRankOrder) {
  Group& group = environment->world();
  // 2.6 MiB of f64 per rank, uneven, more than one block of scratch; values whose sum depends on the order.
  const int64_t part = 120'001;
  std::vector<int64_t> counts;
  for (int r = 0; r < group.size(); ++r) counts.push_back(part + 977 * r);
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  const auto value = [](int rank, int64_t i) { return 1e16 / (rank + 1) + static_cast<double>(i * (rank + 3) % 1013); };
  std::vector<double> all(static_cast<size_t>(total));
  for (int64_t i = 0; i < total; ++i) all[static_cast<size_t>(i)] = value(group.rank(), i);
  int64_t begin = 0;
  for (int r = 0; r < group.rank(); ++r) begin += counts[static_cast<size_t>(r)];
  const auto own = std::span(all).subspan(static_cast<size_t>(begin),
                                          static_cast<size_t>(counts[static_cast<size_t>(group.rank())]));
  group.reduce_scatter(flat(std::span(all)), flat(own), counts, ReduceOp::kSum, kHere, "long");
  int64_t wrong = 0;
  for (int64_t i = 0; i < std::ssize(own); ++i) {
    double want = value(0, begin + i);
    for (int r = 1; r < group.size(); ++r) want += value(r, begin + i);
    wrong += !(own[static_cast<size_t>(i)] == want);
  }
  EXPECT_EQ(wrong, 0);
}

TEST(MpiGroup, OneCallAtATime) {
  Group& group = environment->world();
  if (group.size() < 2) GTEST_SKIP() << "one rank never waits";
  if (group.rank() == 0) {
    Stream stream(Device::cpu());
    float x = 0;
    const Event waiting = group.recv(flat(std::span(&x, 1)), 1, stream, "late");
    bool refused = false;
    for (int i = 0; i < 2000 && !refused && !waiting.done(); ++i) {
      // The queue may not have begun; once it has, a second call must be refused.
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      float y = 0;
      try {
        group.send(flat(std::span(&y, 0)), 1, kHere, "empty");
      } catch (const Error& error) {
        refused = error.kind() == ErrorKind::kInvalidArgument &&
                  std::string(error.what()).find("one call at a time") != std::string::npos;
      }
    }
    EXPECT_TRUE(refused);
    const auto answer = environment->world().async_error();
    EXPECT_FALSE(answer.has_value());
    waiting.wait();
    EXPECT_EQ(x, 4.0f);
  } else if (group.rank() == 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    float x = 4;
    group.send(flat(std::span(&x, 1)), 0, kHere, "late");
  }
  group.barrier(kHere, "together again");
}

}  // namespace
}  // namespace permafrost

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  permafrost::MpiOptions options;
  options.timeout = std::chrono::seconds(20);
  options.moved = &permafrost::moved;
  // With the argument `small-chunks` every message beyond 1000 bytes takes several chunks: what counts above 2^31 take.
  if (argc > 1 && std::string(argv[1]) == "small-chunks") options.chunk_bytes = 1000;
  const auto environment = permafrost::open_mpi(options);
  permafrost::environment = environment.get();
  return permafrost::fail_together(environment->world(), [&] {
    int64_t failed = RUN_ALL_TESTS();
    permafrost::Group& world = environment->world();
    const permafrost::Tensor tensor = permafrost::flat(std::span(&failed, 1));
    world.all_reduce(tensor, tensor, permafrost::ReduceOp::kMax, permafrost::StreamView::caller(), "test result");
    if (failed) permafrost::fail(permafrost::ErrorKind::kInternal, "tests failed on at least one rank");
    environment->close();
  });
}
