// One rank fails, in the way named by the first argument, while the others wait or compute, and writes the time of its
// failure (ms since 1970) to the file named by the second: tests/distributed/fail_together.sh
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>

#include "core/base/check.h"
#include "core/device/stream.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"
#include "parallel/group/node/node_group.h"

namespace permafrost {
namespace {

void write_time(const std::string& path) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::ofstream(path) << std::chrono::duration_cast<std::chrono::milliseconds>(now).count() << std::endl;
}

bool begins_with(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

/// Rank 1 is killed by a thread of its own after a while, wherever it is then.
void kill_soon(const std::string& time_file) {
  std::thread([time_file] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    write_time(time_file);
    raise(SIGKILL);
  }).detach();
}

/// Ranks of a node gather until one is killed: from memory that they share (node-gather) or through the scratch
/// (node-scratch), or wait in a barrier (node-barrier), or compute (node-compute).
void work_on_node(Group& world, const std::string& how, const std::string& time_file) {
  NodeGroup node(world, {});
  constexpr int64_t kElements = 4'000'000;
  SharedMemory memory = node.allocate("gathered", kElements * 8);
  std::vector<int64_t> whole(kElements * 3);
  std::vector<int64_t> apart(kElements);
  auto* shared = reinterpret_cast<int64_t*>(memory.data());
  const std::span<int64_t> part(how == "node-gather" ? shared : apart.data(), kElements);
  if (world.rank() == 1) kill_soon(time_file);
  if (how == "node-compute" || (how == "node-barrier" && world.rank() == 1))
    for (std::atomic<int64_t> i = 0; i < int64_t{1} << 40;) ++i;
  if (how == "node-barrier") node.barrier(StreamView::caller(), "step 7");
  for (int i = 0; i < 100'000; ++i)
    node.all_gather(flat(part), flat(std::span(whole)), {}, StreamView::caller(), "unit");
  std::cout << "rank " << world.rank() << " went on" << std::endl;
}

void work(Group& world, const std::string& how, const std::string& time_file) {
  const StreamView here = StreamView::caller();
  world.barrier(here, "start");
  if (begins_with(how, "node-")) return work_on_node(world, how, time_file);
  if (world.rank() == 1) write_time(time_file);
  if (how == "all") fail(ErrorKind::kConfig, "config: steps must be > 0; got 0");
  if (world.rank() == 1) {
    if (begins_with(how, "kill")) raise(SIGKILL);
    if (how == "term") kill(getpid(), SIGTERM);
    if (how == "term") std::this_thread::sleep_for(std::chrono::seconds(60));
    if (how == "late") std::this_thread::sleep_for(std::chrono::seconds(60));
    fail(ErrorKind::kNonFinite, "loss: must be finite; got nan [step 3]");
  }
  if (how == "kill-compute" ||
      (how == "compute" && world.rank() == 2))  // never comes to a collective; 60 s is far beyond the test's limit
    for (int i = 0; i < 6000; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::vector<int64_t> sums(1'000'000, 1);
  const Tensor tensor = flat(std::span(sums));
  if (how == "stream") {  // waits on another thread, while this one computes
    Stream stream(Device::cpu());
    world.all_reduce(tensor, tensor, ReduceOp::kSum, stream, "gradients");
    std::this_thread::sleep_for(std::chrono::seconds(60));
  }
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
