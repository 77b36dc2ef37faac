// One rank fails, in the way named by the first argument, while the others wait or compute, and writes the time of its
// failure (ms since 1970) to the file named by the second: tests/distributed/fail_together.sh
#include <chrono>
#include <csignal>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>

#include "core/base/check.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {
namespace {

void write_time(const std::string& path) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::ofstream(path) << std::chrono::duration_cast<std::chrono::milliseconds>(now).count() << std::endl;
}

void work(Group& world, const std::string& how, const std::string& time_file) {
  const StreamView here = StreamView::caller();
  world.barrier(here, "start");
  if (world.rank() == 1) write_time(time_file);
  if (how == "all") fail(ErrorKind::kConfig, "config: steps must be > 0; got 0");
  if (world.rank() == 1) {
    if (how == "kill") raise(SIGKILL);
    if (how == "late") std::this_thread::sleep_for(std::chrono::seconds(60));
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
  permafrost::MpiOptions options;
  if (std::string(argv[1]) == "late") options.timeout = std::chrono::seconds(1);
  const auto environment = permafrost::open_mpi(options);
  return permafrost::fail_together(environment->world(), [&] {
    permafrost::work(environment->world(), argv[1], argv[2]);
    environment->close();
  });
}
