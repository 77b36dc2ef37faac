#include "parallel/group/hierarchical_group.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>

#include "core/base/check.h"
#include "parallel/group/call.h"

namespace permafrost {
namespace {

const StreamView kInline = StreamView::caller();
constexpr int64_t kLaneScratchBytes = int64_t{8} << 20;  // fewer, larger rounds: each waits for the network once

Tensor elements_at(const std::byte* data, DType dtype, int64_t elements) {
  return {const_cast<std::byte*>(data), dtype, Shape({elements})};
}

bool keeps_bits_in_any_grouping(const Call& call) {
  const bool floating = call.dtype == DType::kF32 || call.dtype == DType::kF64;
  return call.op != ReduceOp::kSum || !floating;
}

}  // namespace

std::vector<int> find_nodes(Group& world) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  auto mine = static_cast<int64_t>(std::hash<std::string>()(boot + " " + host.data()));
  std::vector<int64_t> all(static_cast<size_t>(world.size()));
  world.all_gather(flat(std::span(&mine, 1)), flat(std::span(all)), {}, StreamView::caller(), "nodes");
  std::map<int64_t, int> numbers;
  std::vector<int> nodes;
  for (const int64_t name : all)
    nodes.push_back(numbers.try_emplace(name, static_cast<int>(numbers.size())).first->second);
  return nodes;
}

HierarchicalGroup::HierarchicalGroup(Group& flat, std::vector<int> node_of_rank, const NodeOptions& options)
    : flat_(&flat), node_of_rank_(std::move(node_of_rank)), options_(options) {
  set_up(nullptr);
}

HierarchicalGroup::HierarchicalGroup(std::unique_ptr<Group> flat, std::vector<int> node_of_rank,
                                     const NodeOptions& options, NodeGroup* parent)
    : owned_flat_(std::move(flat)),
      flat_(owned_flat_.get()),
      node_of_rank_(std::move(node_of_rank)),
      options_(options) {
  set_up(parent);
}

HierarchicalGroup::~HierarchicalGroup() = default;

void HierarchicalGroup::set_up(NodeGroup* parent) {
  PERMAFROST_CHECK(std::ssize(node_of_rank_) == size(),
                   "hierarchical group: node_of_rank must have one entry per rank (", size(), "); got ",
                   node_of_rank_.size());
  std::vector<int> order;  // of nodes, by their first rank
  for (const int node : node_of_rank_)
    if (std::ranges::find(order, node) == order.end()) order.push_back(node);
  nodes_ = static_cast<int>(order.size());
  per_node_ = size() / nodes_;
  const int own = node_of_rank_[static_cast<size_t>(rank())];
  self_node_ = static_cast<int>(std::ranges::find(order, own) - order.begin());
  self_local_ = static_cast<int>(std::count(node_of_rank_.begin(), node_of_rank_.begin() + rank(), own));
  regular_ = size() % nodes_ == 0;
  for (int r = 0; r < size(); ++r)
    regular_ = regular_ && node_of_rank_[static_cast<size_t>(r)] == order[static_cast<size_t>(r / per_node_)];
  node_base_ = flat_->split(self_node_, rank(), "node", options_.waiting);
  node_ =
      parent ? NodeGroup::child(*parent, *node_base_, options_) : std::make_unique<NodeGroup>(*node_base_, options_);
  if (!regular_ || one_node()) return;
  lane_ = flat_->split(self_local_, rank(), "lane", options_.waiting);
  lane_scratch_ = Buffer("lane scratch", kLaneScratchBytes);
  lane_counts_.resize(static_cast<size_t>(nodes_));
  node_counts_.resize(static_cast<size_t>(per_node_));
  even_counts_.resize(static_cast<size_t>(per_node_));
}

// What the ranks of the new group are here is gathered: its order is theirs to choose.
std::unique_ptr<Group> HierarchicalGroup::split(int color, int key, std::string_view tag, Waiting waiting) {
  auto part = flat_->split(color, key, tag, waiting);
  if (!part) return nullptr;
  auto here = static_cast<int64_t>(rank());
  std::vector<int64_t> ranks(static_cast<size_t>(part->size()));
  part->all_gather(flat(std::span(&here, 1)), flat(std::span(ranks)), {}, kInline, tag);
  std::vector<int> nodes;
  for (const int64_t r : ranks) nodes.push_back(node_of_rank_[static_cast<size_t>(r)]);
  NodeOptions options = options_;
  options.waiting = waiting;
  return std::unique_ptr<Group>(new HierarchicalGroup(std::move(part), std::move(nodes), options, node_.get()));
}

std::optional<Error> HierarchicalGroup::async_error() const {
  for (const Group* group : {static_cast<const Group*>(flat_), static_cast<const Group*>(node_.get()),
                             static_cast<const Group*>(lane_.get())})
    if (group)
      if (auto error = group->async_error()) return error;
  return std::nullopt;
}

Event HierarchicalGroup::run(const Call& call, StreamView stream, void (HierarchicalGroup::*body)(const Call&)) {
  return stream.submit([this, call, body] {
    if (const auto error = async_error()) throw Error(*error);
    (this->*body)(call);
  });
}

bool HierarchicalGroup::in_two_steps(const Call& call) const {
  return regular_ && (call.operation == Operation::kAllGather || keeps_bits_in_any_grouping(call));
}

int64_t HierarchicalGroup::node_pieces(const Call& call, int node) {
  int64_t elements = 0;
  for (int l = 0; l < per_node_; ++l)
    elements += node_counts_[static_cast<size_t>(l)] = call.count(rank_of(node, l), size());
  return elements;
}

int64_t HierarchicalGroup::lane_pieces(const Call& call, int64_t at, int64_t most) {
  int64_t elements = 0;
  for (int n = 0; n < nodes_; ++n)
    elements += lane_counts_[static_cast<size_t>(n)] =
        std::clamp<int64_t>(call.count(rank_of(n, self_local_), size()) - at, 0, most);
  return elements;
}

Event HierarchicalGroup::barrier(StreamView stream, std::string_view tag) {
  return run(barrier_call(tag), stream, &HierarchicalGroup::do_barrier);
}

void HierarchicalGroup::do_barrier(const Call& call) {
  if (!regular_) {
    flat_->barrier(kInline, call.tag);
    return;
  }
  node_->barrier(kInline, call.tag);
  if (one_node()) return;
  if (self_local_ == 0) lane_->barrier(kInline, call.tag);
  node_->barrier(kInline, call.tag);
}

Event HierarchicalGroup::all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts,
                                    StreamView stream, std::string_view tag) {
  return run(all_gather_call(rank(), size(), part, all, counts, tag), stream, &HierarchicalGroup::do_all_gather);
}

void HierarchicalGroup::do_all_gather(const Call& call) {
  const int64_t size_bytes = size_of(call.dtype);
  const Tensor part = elements_at(call.in, call.dtype, call.count(rank(), size()));
  const Tensor all = elements_at(call.out, call.dtype, call.elements);
  if (one_node() || !in_two_steps(call)) {
    Group& group = one_node() ? static_cast<Group&>(*node_) : *flat_;
    group.all_gather(part, all, call.counts, kInline, call.tag);
    return;
  }
  gather_lane(call);
  for (int n = 0; n < nodes_; ++n) {
    const std::byte* block = call.out + call.offset(rank_of(n, 0), size()) * size_bytes;
    const std::byte* own = call.out + call.offset(rank_of(n, self_local_), size()) * size_bytes;
    const int64_t elements = node_pieces(call, n);
    node_->all_gather(elements_at(own, call.dtype, node_counts_[static_cast<size_t>(self_local_)]),
                      elements_at(block, call.dtype, elements), node_counts_, kInline, call.tag);
  }
}

// The parts of this lane come to their places in `all`, which are apart: by way of a scratch where they are neighbours.
void HierarchicalGroup::gather_lane(const Call& call) {
  const int64_t size_bytes = size_of(call.dtype);
  const int64_t most = kLaneScratchBytes / nodes_ / size_bytes;
  int64_t longest = 0;
  for (int n = 0; n < nodes_; ++n) longest = std::max(longest, call.count(rank_of(n, self_local_), size()));
  for (int64_t at = 0; at < longest; at += most) {
    const int64_t elements = lane_pieces(call, at, most);
    lane_->all_gather(elements_at(call.in + at * size_bytes, call.dtype, lane_counts_[static_cast<size_t>(self_node_)]),
                      elements_at(lane_scratch_.data(), call.dtype, elements), lane_counts_, kInline, call.tag);
    const std::byte* source = lane_scratch_.data();
    for (int n = 0; n < nodes_; ++n) {
      std::byte* target = call.out + (call.offset(rank_of(n, self_local_), size()) + at) * size_bytes;
      const auto bytes = static_cast<size_t>(lane_counts_[static_cast<size_t>(n)] * size_bytes);
      const bool in_place = n == self_node_ && target == call.in + at * size_bytes;
      if (bytes > 0 && !in_place) std::memcpy(target, source, bytes);
      source += bytes;
    }
  }
}

Event HierarchicalGroup::reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts,
                                        ReduceOp op, StreamView stream, std::string_view tag) {
  return run(reduce_scatter_call(rank(), size(), all, part, counts, op, tag), stream,
             &HierarchicalGroup::do_reduce_scatter);
}

void HierarchicalGroup::do_reduce_scatter(const Call& call) {
  const int64_t size_bytes = size_of(call.dtype);
  const Tensor part = elements_at(call.out, call.dtype, call.count(rank(), size()));
  const Tensor all = elements_at(call.in, call.dtype, call.elements);
  if (one_node() || !in_two_steps(call)) {
    Group& group = one_node() ? static_cast<Group&>(*node_) : *flat_;
    group.reduce_scatter(all, part, call.counts, call.op, kInline, call.tag);
    return;
  }
  // The node's sums of this lane's parts take these parts' places in `all`: the contract leaves them to us.
  for (int n = 0; n < nodes_; ++n) {
    const std::byte* block = call.in + call.offset(rank_of(n, 0), size()) * size_bytes;
    const std::byte* own = call.in + call.offset(rank_of(n, self_local_), size()) * size_bytes;
    const int64_t elements = node_pieces(call, n);
    node_->reduce_scatter(elements_at(block, call.dtype, elements),
                          elements_at(own, call.dtype, node_counts_[static_cast<size_t>(self_local_)]), node_counts_,
                          call.op, kInline, call.tag);
  }
  reduce_lane(call);
}

void HierarchicalGroup::reduce_lane(const Call& call) {
  const int64_t size_bytes = size_of(call.dtype);
  const int64_t most = kLaneScratchBytes / nodes_ / size_bytes;
  int64_t longest = 0;
  for (int n = 0; n < nodes_; ++n) longest = std::max(longest, call.count(rank_of(n, self_local_), size()));
  for (int64_t at = 0; at < longest; at += most) {
    const int64_t elements = lane_pieces(call, at, most);
    std::byte* target = lane_scratch_.data();
    for (int n = 0; n < nodes_; ++n) {
      const std::byte* source = call.in + (call.offset(rank_of(n, self_local_), size()) + at) * size_bytes;
      const auto bytes = static_cast<size_t>(lane_counts_[static_cast<size_t>(n)] * size_bytes);
      if (bytes > 0) std::memcpy(target, source, bytes);
      target += bytes;
    }
    lane_->reduce_scatter(
        elements_at(lane_scratch_.data(), call.dtype, elements),
        elements_at(call.out + at * size_bytes, call.dtype, lane_counts_[static_cast<size_t>(self_node_)]),
        lane_counts_, call.op, kInline, call.tag);
  }
}

Event HierarchicalGroup::all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream,
                                    std::string_view tag) {
  return run(all_reduce_call(in, out, op, tag), stream, &HierarchicalGroup::do_all_reduce);
}

void HierarchicalGroup::do_all_reduce(const Call& call) {
  const Tensor in = elements_at(call.in, call.dtype, call.elements);
  const Tensor out = elements_at(call.out, call.dtype, call.elements);
  if (one_node() || !in_two_steps(call)) {
    Group& group = one_node() ? static_cast<Group&>(*node_) : *flat_;
    group.all_reduce(in, out, call.op, kInline, call.tag);
    return;
  }
  int64_t begin = 0;
  for (int l = 0; l < per_node_; ++l) {
    const int64_t count = call.elements * (l + 1) / per_node_ - call.elements * l / per_node_;
    even_counts_[static_cast<size_t>(l)] = count;
    if (l < self_local_) begin += count;
  }
  const Tensor slice =
      elements_at(call.out + begin * size_of(call.dtype), call.dtype, even_counts_[static_cast<size_t>(self_local_)]);
  node_->reduce_scatter(in, slice, even_counts_, call.op, kInline, call.tag);
  lane_->all_reduce(slice, slice, call.op, kInline, call.tag);
  node_->all_gather(slice, out, even_counts_, kInline, call.tag);
}

Event HierarchicalGroup::broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) {
  return run(broadcast_call(size(), data, root, tag), stream, &HierarchicalGroup::do_broadcast);
}

void HierarchicalGroup::do_broadcast(const Call& call) {
  const Tensor data = elements_at(call.out, call.dtype, call.elements);
  if (!regular_) {
    flat_->broadcast(data, call.peer, kInline, call.tag);
    return;
  }
  const int root_local = call.peer % per_node_;
  if (!one_node() && self_local_ == root_local) lane_->broadcast(data, call.peer / per_node_, kInline, call.tag);
  node_->broadcast(data, root_local, kInline, call.tag);
}

// A message within a node needs no lane; sender and receiver agree on that.
Event HierarchicalGroup::send(const Tensor& data, int to, StreamView stream, std::string_view tag) {
  const Call call = send_call(rank(), size(), data, to, tag);
  if (regular_ && call.peer / per_node_ == self_node_) return node_->send(data, to % per_node_, stream, tag);
  return flat_->send(data, to, stream, tag);
}

Event HierarchicalGroup::recv(const Tensor& data, int from, StreamView stream, std::string_view tag) {
  const Call call = recv_call(rank(), size(), data, from, tag);
  if (regular_ && call.peer / per_node_ == self_node_) return node_->recv(data, from % per_node_, stream, tag);
  return flat_->recv(data, from, stream, tag);
}

}  // namespace permafrost
