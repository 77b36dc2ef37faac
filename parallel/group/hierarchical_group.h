#pragma once
#include <memory>
#include <span>
#include <vector>

#include "parallel/group/group.h"
#include "parallel/group/node/node_group.h"

namespace permafrost {

/// Node of each rank, numbered from 0 in the order of ranks, by boot id and host name. Collective over `world`.
std::vector<int> find_nodes(Group& world);

/// A group of nodes: ranks of one node exchange through memory, and *lanes* connect nodes: lane l is the l-th rank of
/// every node. Where every node has as many ranks, and these are neighbours in the order of ranks, all_gather crosses
/// hosts once per lane instead of once per rank (each node receives a byte once), and so do reduce_scatter and
/// all_reduce of integers, and maxima and minima of any dtype: within the node first, then along the lane. Sums of
/// floating-point numbers must be taken in rank order, so they go flat unless there is one node; so does all of it
/// where the nodes are uneven. The bits are those of the flat group in every case.
class HierarchicalGroup final : public Group {
 public:
  /// Collective. flat: the same ranks; this group calls it, so nobody else may meanwhile; must outlive this group.
  /// node_of_rank: one per rank, the same on all. options.moved should also be the counter of `flat`.
  HierarchicalGroup(Group& flat, std::vector<int> node_of_rank, const NodeOptions& options);
  ~HierarchicalGroup() override;

  /// Ranks of this rank's node: what allocates memory that they share.
  NodeGroup& node() { return *node_; }
  int nodes() const { return nodes_; }
  /// Whether collectives go through nodes and lanes.
  bool regular() const { return regular_; }

  int rank() const override { return flat_->rank(); }
  int size() const override { return flat_->size(); }
  std::unique_ptr<Group> split(int color, int key, std::string_view tag, Waiting waiting = Waiting::kEager) override;
  Event barrier(StreamView stream, std::string_view tag) override;
  Event all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                   std::string_view tag) override;
  Event reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                       StreamView stream, std::string_view tag) override;
  Event all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream, std::string_view tag) override;
  Event broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) override;
  Event send(const Tensor& data, int to, StreamView stream, std::string_view tag) override;
  Event recv(const Tensor& data, int from, StreamView stream, std::string_view tag) override;
  std::optional<Error> async_error() const override;
  void abort(const Error& reason) noexcept override { flat_->abort(reason); }

 private:
  HierarchicalGroup(std::unique_ptr<Group> flat, std::vector<int> node_of_rank, const NodeOptions& options,
                    NodeGroup* parent);
  void set_up(NodeGroup* parent);
  Event run(const Call& call, StreamView stream, void (HierarchicalGroup::*body)(const Call&));
  void do_barrier(const Call& call);
  void do_all_gather(const Call& call);
  void do_reduce_scatter(const Call& call);
  void do_all_reduce(const Call& call);
  void do_broadcast(const Call& call);
  void gather_lane(const Call& call);
  void reduce_lane(const Call& call);
  /// Whether this call goes through nodes and lanes, several of them.
  bool in_two_steps(const Call& call) const;
  bool one_node() const { return nodes_ == 1; }
  /// Elements of the pieces that members of this lane move in a round, into lane_counts_; returns their sum.
  int64_t lane_pieces(const Call& call, int64_t at, int64_t most);
  /// Counts of the ranks of a node, into node_counts_; returns the elements.
  int64_t node_pieces(const Call& call, int node);
  int rank_of(int node, int local) const { return node * per_node_ + local; }

  std::unique_ptr<Group> owned_flat_;
  Group* flat_;
  std::vector<int> node_of_rank_;
  NodeOptions options_;
  int nodes_ = 1;
  int per_node_ = 1;
  int self_node_ = 0;
  int self_local_ = 0;
  bool regular_ = false;
  std::unique_ptr<Group> node_base_;
  std::unique_ptr<NodeGroup> node_;
  std::unique_ptr<Group> lane_;
  Buffer lane_scratch_;
  std::vector<int64_t> lane_counts_;
  std::vector<int64_t> node_counts_;
  std::vector<int64_t> even_counts_;
};

}  // namespace permafrost
