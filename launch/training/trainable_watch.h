#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/device/thread_pool.h"
#include "optim/sharded_adamw.h"
#include "parallel/group/group.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// Remembers the masters of this rank's slice as they are now, 64 bits of hash for each parameter, to tell later which
/// trainable parameters have not changed at all.
class TrainableWatch {
 public:
  TrainableWatch(const Plan& plan, const ShardedAdamw& optimizer, ThreadPool& pool);

  /// Names of the trainable parameters of which no rank's part has changed since construction, in the order of the
  /// plan; parameters without elements are none of them. Collective over `world`, all ranks.
  std::vector<std::string> unchanged(const ShardedAdamw& optimizer, Group& world, ThreadPool& pool) const;

  /// Trainable parameters with elements, on all ranks together.
  int64_t parameters() const { return static_cast<int64_t>(names_.size()); }

 private:
  struct Piece {  // the part of a parameter that lies in the slice
    size_t name = 0;
    int64_t begin = 0, end = 0;  // elements of the slice
  };
  std::vector<uint64_t> hashes(const ShardedAdamw& optimizer, ThreadPool& pool) const;

  std::vector<std::string> names_;
  std::vector<Piece> pieces_;
  std::vector<uint64_t> before_;  // of each piece
};

/// What changed between the start and the end of step `step`, counted from 1.
struct StepChanges {
  int64_t step = 1;
  int64_t trainables = 0;
  std::vector<std::string> unchanged_trainables;
  int64_t frozen_units = 0;
  std::vector<std::string> changed_frozen_units;
  std::string frozen_sha256;
};

/// One line: "step 1: every trainable changed (123 tensors), no frozen did (hash 0a1b...)", or what is not so: names
/// (five at most) and why a parameter may stay as it is.
std::string to_line(const StepChanges& changes);

}  // namespace permafrost
