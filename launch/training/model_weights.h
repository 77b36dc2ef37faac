#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "configs/config.pb.h"
#include "core/device/thread_pool.h"
#include "optim/sharded_adamw.h"
#include "parallel/group/group.h"
#include "parallel/plan/plan.h"
#include "parallel/shard/frozen_range.h"

namespace permafrost {

/// What was loaded. Equal on all ranks of a node but for the first two numbers.
struct LoadedWeights {
  int64_t needed_bytes = 0;           ///< of weight files, as stored, that this rank's ranges and masters are made of
  std::optional<int64_t> read_bytes;  ///< that this rank read for it, headers included; nothing where nobody counts
  double seconds = 0;                 ///< of the slowest rank of the node
  /// For the log: a line per part ("vision: PATH: 152 tensors, ..." or "text: RANDOM weights ...") and, when there were
  /// files, one about the node ("weights: 5.52 GB needed on this node, 5.53 GB read (1.00 x), 4.1 s").
  std::vector<std::string> lines;
};

/// Fills `ranges` of the frozen space (converted to the storage dtypes) and this rank's masters from weights.vision,
/// weights.text and weights.adapter; a part without a file gets seeded random values and says so. What the adapter file
/// gives is not read elsewhere. Ranges may be cut anywhere between elements; no two ranks that write the same memory
/// may have the same bytes. Working copies are not touched. Needs, beside the values themselves, less than 64 MiB.
/// Random values are drawn by the threads of `pool`, the same ones whoever draws.
///
/// Collective over `world`, all ranks, and `node`, those of this machine: after every rank has its values, figures for
/// the log are exchanged. A rank that finds something wrong throws before that. Errors: kWeights, kStorage;
/// kInvalidArgument for a range that cuts an element.
LoadedWeights load_model_weights(const config::Config& config, const Plan& plan, std::span<const FrozenRange> ranges,
                                 ShardedAdamw& optimizer, Group& world, Group& node, ThreadPool& pool);

}  // namespace permafrost
