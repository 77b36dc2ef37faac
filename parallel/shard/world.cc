#include "parallel/shard/world.h"

#include <algorithm>

#include "core/base/check.h"

namespace permafrost {

int World::node_of(int rank) const {
  PERMAFROST_CHECK(rank >= 0 && rank < ranks, "world: rank must be in 0..", ranks - 1, "; got ", rank);
  if (!node_of_rank.empty()) return node_of_rank[static_cast<size_t>(rank)];
  const int share = ranks / nodes, larger = ranks % nodes;  // the first nodes have one rank more
  const int in_larger = larger * (share + 1);
  return rank < in_larger ? rank / (share + 1) : larger + (rank - in_larger) / share;
}

std::vector<int> World::ranks_of_node(int node) const {
  std::vector<int> found;
  for (int rank = 0; rank < ranks; ++rank)
    if (node_of(rank) == node) found.push_back(rank);
  return found;
}

int World::most_ranks_of_a_node() const {
  std::vector<int> count(static_cast<size_t>(nodes), 0);
  for (int rank = 0; rank < ranks; ++rank) ++count[static_cast<size_t>(node_of(rank))];
  return *std::ranges::max_element(count);
}

int World::spare_cores() const { return std::max(0, cores - most_ranks_of_a_node() * threads); }

void check_world(const World& world) {
  if (world.ranks < 1 || world.nodes < 1 || world.threads < 1)
    fail(ErrorKind::kConfig, "plan: ranks, nodes and threads must be at least 1; got ", world.ranks, ", ", world.nodes,
         ", ", world.threads);
  if (world.ranks < world.nodes)
    fail(ErrorKind::kConfig, "plan: every node needs a rank; got ", world.ranks, " ranks on ", world.nodes, " nodes");
  if (world.node_of_rank.empty()) return;
  if (std::ssize(world.node_of_rank) != world.ranks)
    fail(ErrorKind::kConfig, "plan: every one of the ", world.ranks, " ranks needs a node; got ",
         world.node_of_rank.size());
  for (int node = 0; node < world.nodes; ++node)
    if (!std::ranges::count(world.node_of_rank, node))
      fail(ErrorKind::kConfig, "plan: every node needs a rank; got none for node ", node, " of ", world.nodes);
  for (int node : world.node_of_rank)
    if (node < 0 || node >= world.nodes)
      fail(ErrorKind::kConfig, "plan: nodes must be in 0..", world.nodes - 1, "; got ", node);
}

}  // namespace permafrost
