#pragma once
#include <vector>

#include "core/device/device.h"

namespace permafrost {

/// Who computes: ranks, their threads, and which ranks share the memory of a node.
struct World {
  int ranks = 1;
  int nodes = 1;
  int threads = 1;  ///< per rank
  int cores = 0;    ///< that the ranks of a node may use; 0: not known, none is taken for spare
  /// Node of each rank, 0 to nodes - 1; empty: consecutive ranks share a node, as evenly as they can.
  std::vector<int> node_of_rank = {};
  DeviceKind device = DeviceKind::kCpu;  ///< that programs run on; each rank has one

  int node_of(int rank) const;
  /// Ascending.
  std::vector<int> ranks_of_node(int node) const;
  /// Ranks of the node that has most.
  int most_ranks_of_a_node() const;
  /// Cores that no computing thread of a node uses, at least 0.
  int spare_cores() const;
};

/// Errors: kConfig for fewer than one rank, node or thread, a node without a rank, or a rank without a node.
void check_world(const World& world);

}  // namespace permafrost
