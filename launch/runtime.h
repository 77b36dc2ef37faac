#pragma once
#include <chrono>
#include <functional>
#include <string>

#include "core/device/context.h"
#include "launch/env.h"
#include "parallel/group/group.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {

struct RuntimeOptions {
  int threads = 0;                    ///< compute threads per rank; 0: usable cores of the node / ranks of the node
  std::chrono::seconds timeout{600};  ///< longest wait for other ranks
};

/// What one rank of a run stands on. Made by run_ranks, and gone when its body returns.
struct Runtime {
  Group& world;
  ThreadPool& pool;
  int ranks_on_node = 1;                  ///< ranks that share this machine, this one included
  int rank_on_node = 0;                   ///< among them, by rank
  std::string mpi;                        ///< the MPI library's own name; empty for one rank without MPI
  MpiEnvironment* environment = nullptr;  ///< null for one rank without MPI

  int rank() const { return world.rank(); }
  int size() const { return world.size(); }
  bool first() const { return world.rank() == 0; }
  Context context() const { return Context{Device::cpu(), &pool, StreamView::caller()}; }
};

/// Runs body(runtime) as this process's rank and returns the exit code: without MPI when the launcher started one rank
/// or there is none, else through the MPI backend. A rank that throws takes the others down with its exit code. Errors
/// before there are ranks: kNotBuilt (no MPI backend), kPeer (MPI refuses, or counts other ranks than the launcher, as
/// happens when the two do not belong together).
int run_ranks(const Launcher& launcher, const RuntimeOptions& options, const std::function<void(Runtime&)>& body);

/// threads of options, or the share of this rank: cores / ranks, at least 1.
int threads_per_rank(int wanted, int cores, int ranks_on_node);

}  // namespace permafrost
