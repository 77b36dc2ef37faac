#include "launch/runtime.h"

#include <glog/logging.h>

#include <algorithm>
#include <map>
#include <vector>

#include "core/base/check.h"
#include "core/base/sha256.h"
#include "launch/machine.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/inproc_group.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {

namespace {

/// A number for each rank's machine; needs nothing from the launcher.
std::vector<int64_t> machines_of(Group& world) {
  const std::string identity = machine_identity();
  const std::string digest = sha256(identity.data(), identity.size());
  int64_t mine = static_cast<int64_t>(std::stoull(digest.substr(0, 15), nullptr, 16));
  std::vector<int64_t> all(static_cast<size_t>(world.size()));
  world.all_gather(flat(std::span(&mine, 1)), flat(std::span(all)), {}, StreamView::caller(), "machine identity")
      .wait();
  return all;
}

void run_body(Group& world, const std::string& mpi, const RuntimeOptions& options,
              const std::function<void(Runtime&)>& body) {
  const std::vector<int64_t> machines = machines_of(world);
  const auto on_machine = static_cast<int>(std::ranges::count(machines, machines[static_cast<size_t>(world.rank())]));
  World place;
  place.ranks = world.size();
  place.node_of_rank = nodes_of_ranks(machines, options.ranks_per_node);
  place.nodes = 1 + std::ranges::max(place.node_of_rank);
  place.threads = threads_per_rank(options.threads, usable_cores(), on_machine);
  const auto on_node = static_cast<int>(place.ranks_of_node(place.node_of(world.rank())).size());
  place.cores = usable_cores() * on_node / on_machine;
  const bool core_per_thread = place.threads * on_machine <= usable_cores();
  ThreadPool pool(place.threads, core_per_thread ? ThreadPool::kLongSpin : ThreadPool::kShortSpin);
  LOG(INFO) << "rank " << world.rank() << "/" << world.size() << ", node " << place.node_of(world.rank()) << "/"
            << place.nodes << ", " << pool.threads() << " threads" << (mpi.empty() ? "" : ", ") << mpi;
  const auto peers = world.split(place.node_of(world.rank()), world.rank(), "node", Waiting::kEager);
  NodeGroup node(*peers);
  Runtime runtime{world, pool, place, node, mpi};
  body(runtime);
}

}  // namespace

std::vector<int> nodes_of_ranks(const std::vector<int64_t>& machines, int ranks_per_node) {
  std::vector<int> nodes;
  std::map<int64_t, std::pair<int, int>> filling;  // machine -> the node being filled, and its ranks so far
  int count = 0;
  for (int64_t machine : machines) {
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
    return fail_together(*world, [&] { run_body(*world, "", options, body); });
  }
  MpiOptions mpi_options;
  mpi_options.timeout = options.timeout;
  const auto environment = open_mpi(mpi_options);
  Group& world = environment->world();
  return fail_together(world, [&] {
    if (launcher.size > 0 && world.size() != launcher.size)
      fail(ErrorKind::kPeer, "mpi: expected ", launcher.size, " ranks, as ", launcher.name, " says (", launcher.seen,
           "); got ", world.size(), " from ", environment->library_version(),
           ": launcher and MPI library do not belong together");
    run_body(world, environment->library_version(), options, body);
    environment->close();
  });
}

}  // namespace permafrost
