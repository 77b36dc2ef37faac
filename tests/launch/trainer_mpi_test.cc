// Run by mpirun: the trainer of every rank, in this process, over MPI.
#include <mpi.h>

#include "parallel/group/fail_together.h"
#include "parallel/group/hierarchical_group.h"
#include "parallel/group/mpi_loader.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

MpiEnvironment* environment = nullptr;
int64_t calls_seen = 0;

class TrainerMpi : public TrainerTest {};

/// Has the library make, once and for all, what it keeps small messages in that come before they are asked for. Which
/// message of a step does, is a matter of time, so that no number of steps would be sure to do it.
void send_early(Group& world) {
  constexpr int kEach = 8;
  std::vector<std::byte> bytes(3000);
  const auto to_all = [&](int64_t size, auto send_or_recv) {
    for (int i = 0; i < kEach; ++i)
      for (int rank = 0; rank < world.size(); ++rank)
        if (rank != world.rank()) send_or_recv(Tensor(bytes.data(), DType::kU8, Shape{size}), rank);
  };
  for (const int64_t size : {1, 16, 32, 64, 128, 256, 512, 1024, 2048, 3000}) {
    to_all(size, [&](const Tensor& data, int rank) { world.send(data, rank, StreamView::caller(), "early").wait(); });
    world.barrier(StreamView::caller(), "early").wait();
    to_all(size, [&](const Tensor& data, int rank) { world.recv(data, rank, StreamView::caller(), "early").wait(); });
  }
}

TEST_F(TrainerMpi, StepsAllocateNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted under sanitizers";
  Group& world = environment->world();
  send_early(world);
  for (const Overrides& more : allocation_cases()) {
    ThreadPool pool(2);
    HierarchicalGroup group(world, std::vector<int>(static_cast<size_t>(world.size()), 0), {});
    Runtime runtime{group, pool, {world.size(), 1, 1}, group.node(), environment->library_version()};
    calls_seen = 0;
    on_rank(more, runtime, [](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& r) {
      expect_steps_allocate_nothing(trainer, r);
    });
    EXPECT_GT(calls_seen, 0) << "MPI was called without being counted apart";
  }
}

}  // namespace
}  // namespace permafrost

// Stand in front of the MPI library: what it allocates inside these calls is its own.
extern "C" {
int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request) {
  const permafrost::testing::LibraryCall inside;
  ++permafrost::calls_seen;
  return PMPI_Isend(data, count, type, to, tag, comm, request);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Request* request) {
  const permafrost::testing::LibraryCall inside;
  ++permafrost::calls_seen;
  return PMPI_Irecv(data, count, type, from, tag, comm, request);
}
int MPI_Testall(int count, MPI_Request* requests, int* done, MPI_Status* statuses) {
  const permafrost::testing::LibraryCall inside;
  ++permafrost::calls_seen;
  return PMPI_Testall(count, requests, done, statuses);
}
}

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto environment = permafrost::open_mpi();
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
