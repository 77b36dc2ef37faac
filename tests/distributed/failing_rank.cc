// One rank fails, in the way named by the argument, while the others wait or compute: tests/distributed/fail_together.sh
#include <csignal>
#include <iostream>
#include <string>
#include <thread>

#include "core/base/check.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {
namespace {

void work(Group& world, const std::string& how) {
  const StreamView here = StreamView::caller();
  world.barrier(here, "start");
  if (how == "all") fail(ErrorKind::kConfig, "config: steps must be > 0; got 0");
  if (world.rank() == 1) {
    if (how == "kill") raise(SIGKILL);
    fail(ErrorKind::kNonFinite, "loss: must be finite; got nan [step 3]");
  }
  if (how == "compute" && world.rank() == 2)  // never comes to a collective; 60 s is far beyond the test's limit
    for (int i = 0; i < 6000; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::vector<int64_t> sums(1'000'000, 1);
  const Tensor tensor = flat(std::span(sums));
  world.all_reduce(tensor, tensor, ReduceOp::kSum, here, "gradients");
  std::cout << "rank " << world.rank() << " went on" << std::endl;
}

}  // namespace
}  // namespace permafrost

int main(int, char** argv) {
  const auto environment = permafrost::open_mpi();
  return permafrost::fail_together(environment->world(), [&] {
    permafrost::work(environment->world(), argv[1]);
    environment->close();
  });
}
