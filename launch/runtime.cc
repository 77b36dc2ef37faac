#include "launch/runtime.h"

#include <glog/logging.h>

#include <algorithm>
#include <vector>

#include "core/base/check.h"
#include "core/base/sha256.h"
#include "launch/machine.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/inproc_group.h"

namespace permafrost {

namespace {

struct Place {
  int ranks_on_node = 1;
  int rank_on_node = 0;
};

/// Counts the ranks whose machine has the same identity; needs nothing from the launcher.
Place place_of(Group& world) {
  const std::string identity = machine_identity();
  const std::string digest = sha256(identity.data(), identity.size());
  int64_t mine = static_cast<int64_t>(std::stoull(digest.substr(0, 15), nullptr, 16));
  std::vector<int64_t> all(static_cast<size_t>(world.size()));
  world.all_gather(flat(std::span(&mine, 1)), flat(std::span(all)), {}, StreamView::caller(), "machine identity")
      .wait();
  const auto rank = static_cast<std::ptrdiff_t>(world.rank());
  return {static_cast<int>(std::count(all.begin(), all.end(), mine)),
          static_cast<int>(std::count(all.begin(), all.begin() + rank, mine))};
}

void run_body(Group& world, MpiEnvironment* environment, const RuntimeOptions& options,
              const std::function<void(Runtime&)>& body) {
  const std::string mpi = environment ? environment->library_version() : "";
  const Place place = place_of(world);
  const int threads = threads_per_rank(options.threads, usable_cores(), place.ranks_on_node);
  const bool core_per_thread = threads * place.ranks_on_node <= usable_cores();
  ThreadPool pool(threads, core_per_thread ? ThreadPool::kLongSpin : ThreadPool::kShortSpin);
  LOG(INFO) << "rank " << world.rank() << "/" << world.size() << ", " << place.rank_on_node << "/"
            << place.ranks_on_node << " of its node, " << pool.threads() << " threads" << (mpi.empty() ? "" : ", ")
            << mpi;
  Runtime runtime{world, pool, place.ranks_on_node, place.rank_on_node, mpi, environment};
  body(runtime);
}

}  // namespace

int threads_per_rank(int wanted, int cores, int ranks_on_node) {
  return wanted > 0 ? wanted : std::max(1, cores / std::max(1, ranks_on_node));
}

int run_ranks(const Launcher& launcher, const RuntimeOptions& options, const std::function<void(Runtime&)>& body) {
  if (!launcher.seen.empty()) LOG(INFO) << "environment: " << launcher.seen;
  if (!launcher.several()) {
    const auto world = make_solo_group();
    return fail_together(*world, [&] { run_body(*world, nullptr, options, body); });
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
    run_body(world, environment.get(), options, body);
    environment->close();
  });
}

}  // namespace permafrost
