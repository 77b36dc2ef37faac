#include "launch/runtime.h"

#include <glog/logging.h>
#include <sched.h>

#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "configs/config.pb.h"
#include "core/base/check.h"
#include "launch/gpu.h"
#include "launch/machine.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/hierarchical_group.h"
#include "parallel/group/inproc_group.h"

namespace permafrost {

RuntimeOptions runtime_options(const config::Parallel& parallel) {
  const bool cuda = parallel.device() == config::Parallel::CUDA;
  return {parallel.threads(), std::chrono::seconds(parallel.timeout_s()), parallel.ranks_per_node(),
          cuda ? DeviceKind::kCuda : DeviceKind::kCpu};
}

namespace {

/// Before anything depends on it: ranks that divide their machines differently wait for different ranks.
void require_same_division(Group& world, int ranks_per_node) {
  int64_t bounds[] = {ranks_per_node, -ranks_per_node};
  const Tensor tensor = flat(std::span<int64_t>(bounds));
  world.all_reduce(tensor, tensor, ReduceOp::kMin, StreamView::caller(), "ranks per node").wait();
  if (bounds[0] != -bounds[1])
    fail(ErrorKind::kConfig, "config: all ranks must agree; got parallel.ranks_per_node from ", bounds[0], " to ",
         -bounds[1], ", here ", ranks_per_node);
}

/// Cores that the ranks of this rank's machine may use together, whether launchers bind each to its own or not.
int cores_of_machine(Group& world, const std::vector<int>& machines) {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  sched_getaffinity(0, sizeof mine, &mine);
  std::vector<cpu_set_t> all(machines.size());
  world
      .all_gather(Tensor(&mine, DType::kU8, Shape{sizeof mine}),
                  Tensor(all.data(), DType::kU8, Shape{static_cast<int64_t>(all.size() * sizeof mine)}), {},
                  StreamView::caller(), "cores")
      .wait();
  cpu_set_t together = mine;
  for (size_t r = 0; r < all.size(); ++r)
    if (machines[r] == machines[static_cast<size_t>(world.rank())]) CPU_OR(&together, &together, &all[r]);
  const int limit = granted_cores(), cores = std::max(1, CPU_COUNT(&together));
  return limit > 0 ? std::min(limit, cores) : cores;
}

/// What plans are made for: with the most threads of any rank and the fewest cores of any node, so that all ranks plan
/// alike.
void agree_on_threads(Group& world, World& place) {
  int64_t most[] = {place.threads, -place.cores};
  const Tensor tensor = flat(std::span<int64_t>(most));
  world.all_reduce(tensor, tensor, ReduceOp::kMax, StreamView::caller(), "threads").wait();
  place.threads = static_cast<int>(most[0]);
  place.cores = static_cast<int>(-most[1]);
}

void run_body(Group& flat, MpiEnvironment* environment, const RuntimeOptions& options, MovedBytes* moved,
              const std::function<void(Runtime&)>& body) {
  const std::string mpi = environment ? environment->library_version() : "";
  require_same_division(flat, options.ranks_per_node);
  const std::vector<int> machines = find_nodes(flat);
  const auto on_machine = static_cast<int>(std::ranges::count(machines, machines[static_cast<size_t>(flat.rank())]));
  const int cores = cores_of_machine(flat, machines), threads = threads_per_rank(options.threads, cores, on_machine);
  World place;
  place.ranks = flat.size();
  place.node_of_rank = divide_machines(machines, options.ranks_per_node);
  place.nodes = 1 + std::ranges::max(place.node_of_rank);
  place.threads = threads;
  const auto on_node = static_cast<int>(place.ranks_of_node(place.node_of(flat.rank())).size());
  place.cores = cores * on_node / on_machine;
  agree_on_threads(flat, place);
  place.device = options.device;
  const std::span before(machines.data(), static_cast<size_t>(flat.rank()));
  const auto rank_on_machine = static_cast<int>(std::ranges::count(before, machines[before.size()]));
  const std::unique_ptr<Stream> gpu = open_gpu(options.device, rank_on_machine);
  ThreadPool pool(threads, threads * on_machine <= cores ? ThreadPool::kLongSpin : ThreadPool::kShortSpin);
  NodeOptions node_options;
  node_options.timeout = options.timeout;
  node_options.moved = moved;
  node_options.mpi = environment;
  node_options.cores = cores;
  HierarchicalGroup world(flat, place.node_of_rank, node_options);
  LOG(INFO) << "rank " << flat.rank() << "/" << flat.size() << ", node " << place.node_of(flat.rank()) << "/"
            << place.nodes << ", " << pool.threads() << " threads" << (mpi.empty() ? "" : ", ") << mpi;
  Runtime runtime{world,
                  pool,
                  place,
                  world.node(),
                  mpi,
                  environment,
                  on_machine,
                  moved,
                  gpu.get(),
                  free_device_memory(gpu.get()),
                  ranks_on_gpu(flat, gpu.get())};
  body(runtime);
}

}  // namespace

std::vector<int> divide_machines(const std::vector<int>& machines, int ranks_per_node) {
  std::vector<int> nodes;
  std::map<int, std::pair<int, int>> filling;  // machine -> the node being filled, and its ranks so far
  int count = 0;
  for (int machine : machines) {
    const auto [at, fresh] = filling.try_emplace(machine, count, 0);
    auto& [node, ranks] = at->second;
    if (fresh || (ranks_per_node > 0 && ranks == ranks_per_node)) {
      node = count++;
      ranks = 0;
    }
    ++ranks;
    nodes.push_back(node);
  }
  return nodes;
}

int threads_per_rank(int wanted, int cores, int ranks_on_node) {
  return wanted > 0 ? wanted : std::max(1, cores / std::max(1, ranks_on_node));
}

int run_ranks(const Launcher& launcher, const RuntimeOptions& options, const std::function<void(Runtime&)>& body) {
  if (!launcher.seen.empty()) LOG(INFO) << "environment: " << launcher.seen;
  if (!launcher.several()) {
    const auto world = make_solo_group();
    return fail_together(*world, [&] { run_body(*world, nullptr, options, nullptr, body); });
  }
  MpiOptions mpi_options;
  mpi_options.timeout = options.timeout;
  MovedBytes moved;
  mpi_options.moved = &moved;
  const auto environment = open_mpi(mpi_options);
  Group& world = environment->world();
  return fail_together(world, [&] {
    if (launcher.size > 0 && world.size() != launcher.size)
      fail(ErrorKind::kPeer, "mpi: expected ", launcher.size, " ranks, as ", launcher.name, " says (", launcher.seen,
           "); got ", world.size(), " from ", environment->library_version(),
           ": launcher and MPI library do not belong together");
    run_body(world, environment.get(), options, &moved, body);
    environment->close();
  });
}

}  // namespace permafrost
