#pragma once
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/device/context.h"
#include "launch/bench/comm_plan.h"
#include "parallel/group/group.h"

namespace permafrost {

/// One of the ways that are compared: a group of all ranks, and this rank's memory that its tensors lie in, of
/// CommPlan::memory_bytes(), which variants may share.
struct CommVariant {
  std::string name;
  Group* group = nullptr;
  std::byte* memory = nullptr;
  bool sums_in_place = true;  ///< false: this group cannot reduce in place (MPI's own call)
};

/// What the measurements stand on; all ranks give the same.
struct CommBench {
  Group& world;  ///< for barriers and for the slowest rank's time, never timed
  Context context;
  std::vector<CommVariant> variants;
  std::string base;   ///< name of the variant that others are compared with; need not be among the variants
  OrderedJson about;  ///< keys that every JSON object gets at its end: machine, versions
};

/// Median and quartiles of times in seconds, of the slowest rank each.
struct CommRow {
  const bench::CommCase* row = nullptr;
  std::string variant;
  int64_t samples = 0;
  double time = 0, quartile1 = 0, quartile3 = 0;
  int64_t wrong = 0;      ///< elements, over all ranks and both checks
  double base_ratio = 0;  ///< speed in units of the base's; 0: the base was not measured

  double algbw() const { return static_cast<double>(row->size_bytes()) / time; }  ///< bytes per second
  double busbw() const { return algbw() * row->bus_factor(); }
};

/// `permafrost bench comm`, on every rank: checks each call's result on predictable input, times the variants of a case
/// in turn, round after round, each call after a barrier, checks again. Rank 0 prints a table with nccl-tests' columns
/// to `out`, and writes the JSON lines (docs/benchmarks/communication.md). Errors: kStorage when the file cannot be
/// written; kPeer, at the end, when any element was wrong.
void bench_comm(const BenchCommOptions& options, const bench::CommPlan& plan, const CommBench& setup,
                std::ostream& out);

}  // namespace permafrost
