#pragma once
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "core/device/context.h"
#include "launch/env.h"
#include "parallel/group/moved_bytes.h"
#include "parallel/group/node/node_group.h"
#include "parallel/shard/world.h"

namespace permafrost {

namespace config {
class Parallel;
}

struct RuntimeOptions {
  int threads = 0;                       ///< compute threads per rank; 0: usable cores of the node / ranks of the node
  std::chrono::seconds timeout{600};     ///< longest wait for other ranks
  int ranks_per_node = 0;                ///< ranks of a machine that count as a node; 0: all of them
  DeviceKind device = DeviceKind::kCpu;  ///< that programs run on
};

RuntimeOptions runtime_options(const config::Parallel& parallel);

/// What one rank of a run stands on. Made by run_ranks, and gone when its body returns.
struct Runtime {
  Group& world;
  ThreadPool& pool;
  World place;      ///< all ranks and nodes; the most threads of any rank, the fewest cores of any node
  NodeGroup& node;  ///< the ranks of this rank's node
  std::string mpi;  ///< the MPI library's own name; empty for one rank without MPI
  MpiEnvironment* environment = nullptr;  ///< null for one rank without MPI
  int ranks_on_machine = 1;               ///< at least those of the node
  const MovedBytes* moved = nullptr;      ///< what this rank read from others so far, by any group; may be null
  Stream* stream = nullptr;               ///< of the CUDA device that this rank's programs run on; null: on CPU
  int64_t device_free_bytes = 0;          ///< of that device when it was opened; 0: on CPU
  int ranks_on_gpu = 1;                   ///< this one included

  int rank() const { return world.rank(); }
  int size() const { return world.size(); }
  bool first() const { return world.rank() == 0; }
  int ranks_on_node() const { return node.size(); }
  /// For what the host computes: sums, norms, the optimizer.
  Context context() const { return Context{Device::cpu(), &pool, StreamView::caller()}; }
  /// Of programs.
  Device device() const { return stream ? stream->device() : Device::cpu(); }
  Context program_context() const {
    return stream ? Context{.device = stream->device(), .pool = nullptr, .stream = *stream} : context();
  }
};

/// Runs body(runtime) as this process's rank and returns the exit code: without MPI when the launcher started one rank
/// or there is none, else through the MPI backend. A rank that throws takes the others down with its exit code. Errors
/// before there are ranks: kNotBuilt (no MPI backend), kPeer (MPI refuses, or counts other ranks than the launcher, as
/// happens when the two do not belong together). Errors for all ranks: kNotBuilt or kConfig where `device` is CUDA and
/// there is none, saying why.
int run_ranks(const Launcher& launcher, const RuntimeOptions& options, const std::function<void(Runtime&)>& body);

/// Nodes of ranks, given the machine of each: ranks of one machine share a node, at most `ranks_per_node` of them where
/// that is not 0. Nodes are numbered in the order of their first ranks.
std::vector<int> divide_machines(const std::vector<int>& machines, int ranks_per_node);

/// threads of options, or the share of this rank: cores / ranks, at least 1.
int threads_per_rank(int wanted, int cores, int ranks_on_node);

}  // namespace permafrost
