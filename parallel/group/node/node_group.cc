#include "parallel/group/node/node_group.h"

#include <glog/logging.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "core/base/check.h"
#include "parallel/group/node/free_memory.h"

namespace permafrost {
namespace {

using NodeClock = std::chrono::steady_clock;
constexpr auto kSpinFor = std::chrono::microseconds(20);
constexpr auto kLookAroundEvery = std::chrono::milliseconds(10);
constexpr auto kForWorldsWord = std::chrono::milliseconds(100);

int cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/// Rank 0's file, or why it has none.
struct Offer {
  int64_t file = -1;
  int64_t inode = 0;
  uint64_t piece = 0;
  std::array<char, 488> reason{};
};

uint64_t new_piece_number() {
  static std::atomic<uint32_t> next = 1;
  return static_cast<uint64_t>(getpid()) << 32 | next.fetch_add(1);
}

Offer make_offer(const std::string& name, int64_t bytes) {
  Offer offer;
  offer.piece = new_piece_number();
  try {
    const int file = make_memory_file(name, bytes);
    offer.file = file;
    offer.inode = inode_of(file);
  } catch (const Error& error) {
    std::strncpy(offer.reason.data(), error.what(), offer.reason.size() - 1);
  }
  return offer;
}

Tensor bytes_of(Offer& offer) {
  return {reinterpret_cast<std::byte*>(&offer), DType::kU8, Shape({static_cast<int64_t>(sizeof offer)})};
}

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace

NodeGroup::NodeGroup(Group& bootstrap, const NodeOptions& options)
    : bootstrap_(&bootstrap), options_(options), rank_(bootstrap.rank()), size_(bootstrap.size()) {
  set_up(nullptr);
}

NodeGroup::NodeGroup(std::unique_ptr<Group> owned, Group& bootstrap, const NodeOptions& options,
                     const NodeGroup& parent)
    : owned_bootstrap_(std::move(owned)),
      bootstrap_(&bootstrap),
      options_(options),
      rank_(bootstrap.rank()),
      size_(bootstrap.size()),
      windows_(parent.windows_) {
  set_up(parent.registry_);
}

std::unique_ptr<NodeGroup> NodeGroup::child(const NodeGroup& parent, Group& bootstrap, const NodeOptions& options) {
  return std::unique_ptr<NodeGroup>(new NodeGroup(nullptr, bootstrap, options, parent));
}

NodeGroup::~NodeGroup() = default;

void NodeGroup::set_up(std::shared_ptr<PieceRegistry> parent) {
  registry_ = std::make_shared<PieceRegistry>(std::move(parent));
  const auto ranks = static_cast<size_t>(size_);
  direct_.resize(ranks);
  sources_.resize(ranks);
  even_counts_.resize(ranks);
  if (size_ == 1) return;
  spins_ = options_.waiting == Waiting::kEager && size_ <= (options_.cores > 0 ? options_.cores : cores());
  pids_ = gather(getpid(), "process ids");
  board_ = Board(allocate("board", Board::bytes(size_)), size_);
  std::vector<int64_t> watched = pids_;  // after the allocation: without it, ids may be of another namespace
  if (windows_) std::ranges::fill(watched, 0);
  std::ranges::replace(watched, getpid(), 0);
  processes_ = std::make_unique<ProcessWatch>(watched);
  bootstrap_->barrier(StreamView::caller(), "node group").wait();
}

std::vector<int64_t> NodeGroup::gather(int64_t value, std::string_view tag) {
  std::vector<int64_t> all(static_cast<size_t>(size_));
  bootstrap_->all_gather(flat(std::span(&value, 1)), flat(std::span(all)), {}, StreamView::caller(), tag);
  return all;
}

SharedMemory NodeGroup::allocate(std::string name, int64_t bytes) {
  PERMAFROST_CHECK(bytes >= 0, "node memory '", name, "': bytes must not be negative; got ", bytes);
  if (size_ == 1) {
    // Private memory is given page by page, so the check is made here.
    if (const int64_t available = free_memory_bytes(); bytes > available)
      fail(ErrorKind::kStorage, "node memory '", name, "': ", bytes, " bytes needed; got ", available, " available");
    return SharedMemory::alone(std::move(name), bytes);
  }
  const std::vector<int64_t> sizes = gather(bytes, "bytes of node memory");
  for (int r = 1; r < size_; ++r)
    PERMAFROST_CHECK(sizes[static_cast<size_t>(r)] == sizes[0], "node memory '", name,
                     "': all ranks must ask for as many bytes; got ", sizes[0], " on rank 0 and ",
                     sizes[static_cast<size_t>(r)], " on rank ", r);
  if (bytes == 0) return SharedMemory::of_window(std::move(name), 0, nullptr);
  if (!windows_)
    if (auto memory = share_file(name, bytes)) return std::move(*memory);
  windows_ = true;
  std::byte* data = options_.mpi->allocate_shared(*bootstrap_, name, bytes);
  std::vector<int64_t> numbers = gather(static_cast<int64_t>(new_piece_number()), "number of node memory");
  SharedMemory memory = SharedMemory::of_window(std::move(name), bytes, data);
  memory.register_as(static_cast<uint64_t>(numbers[0]), registry_);
  return memory;
}

// Rank 0 makes a file, the others open it through /proc. None where one of them cannot, on all ranks alike.
std::optional<SharedMemory> NodeGroup::share_file(const std::string& name, int64_t bytes) {
  Offer offer;
  if (rank_ == 0) offer = make_offer(name, bytes);
  struct File {
    int64_t number = -1;
    ~File() {
      if (number >= 0) close(static_cast<int>(number));
    }
  } file;
  if (rank_ == 0) file.number = offer.file;
  bootstrap_->broadcast(bytes_of(offer), 0, StreamView::caller(), "node memory");
  if (offer.file < 0) throw Error(ErrorKind::kStorage, offer.reason.data());
  if (rank_ != 0) file.number = open_memory_file(pids_[0], offer.file, offer.inode);
  int64_t refusal = file.number < 0 ? errno : 0;
  if (options_.force_windows) refusal = EACCES;
  std::optional<SharedMemory> memory;
  try {
    if (refusal == 0) memory = SharedMemory::of_file(name, bytes, static_cast<int>(file.number));
  } catch (const Error& error) {
    LOG(ERROR) << error.what();
    refusal = ENOMEM;
  }
  const std::vector<int64_t> refusals = gather(refusal, "opened node memory");
  const auto bad = std::ranges::find_if(refusals, [](int64_t reason) { return reason != 0; });
  if (bad == refusals.end()) {
    memory->register_as(offer.piece, registry_);
    return memory;
  }
  const std::string what =
      concat("node memory '", name, "': all ranks must open the memory of rank 0 through /proc/", pids_[0],
             "/fd; got \"", std::strerror(static_cast<int>(*bad)), "\" on rank ", bad - refusals.begin());
  if (!options_.mpi) fail(ErrorKind::kStorage, what, ", and no MPI windows to use instead");
  LOG_IF(WARNING, rank_ == 0) << what << "; MPI windows are used instead";
  return std::nullopt;
}

std::unique_ptr<Group> NodeGroup::split(int color, int key, std::string_view tag, Waiting waiting) {
  if (const auto error = async_error()) throw Error(*error);
  auto part = bootstrap_->split(color, key, tag, waiting);
  if (!part) return nullptr;
  NodeOptions options = options_;
  options.waiting = waiting;
  Group& base = *part;
  return std::unique_ptr<Group>(new NodeGroup(std::move(part), base, options, *this));
}

std::optional<Error> NodeGroup::async_error() const {
  if (const auto error = bootstrap_->async_error()) return error;
  const std::lock_guard lock(mutex_);
  return broken_;
}

Event NodeGroup::run(const Call& call, StreamView stream, void (NodeGroup::*body)(const Call&)) {
  return stream.submit([this, call, body] {
    if (const auto error = async_error()) throw Error(*error);
    PERMAFROST_CHECK(!busy_.exchange(true), call.name(),
                     ": one call at a time per group; got a second one while another runs");
    const struct Done {
      std::atomic<bool>& busy;
      ~Done() { busy = false; }
    } done{busy_};
    VLOG(2) << call.name() << " #" << calls_ << " " << call.bytes() << " bytes [rank " << rank_ << "/" << size_ << "]";
    try {
      (this->*body)(call);
    } catch (const Error& error) {
      const std::lock_guard lock(mutex_);
      if (!broken_) broken_ = error;
      throw;
    }
  });
}

void NodeGroup::meet(const Call& call) {
  Board::Gate& gate = board_.gate();
  board_.seat(rank_).phase.store(phase_ + 1, std::memory_order_relaxed);
  if (gate.come.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    gate.come.store(0, std::memory_order_relaxed);  // seen by whoever sees the new phase, and so before the next comes
    gate.phase.post(phase_ + 1);
  } else {
    wait(gate.phase, phase_, call, -1);
  }
  ++phase_;
}

void NodeGroup::wait(FutexWord& word, uint32_t seen, const Call& call, int peer) {
  const auto changed = [&] { return word.value.load(std::memory_order_acquire) != seen; };
  if (changed()) return;
  const auto start = NodeClock::now();
  if (spins_) do {
      for (int i = 0; i < 16; ++i) {
        if (changed()) return;
        pause_briefly();
      }
    } while (NodeClock::now() - start < kSpinFor);
  while (!changed()) {
    const NodeClock::duration left = options_.timeout - (NodeClock::now() - start);
    const auto slice = std::clamp<NodeClock::duration>(left, std::chrono::microseconds(100), kLookAroundEvery);
    sleeps_.fetch_add(1, std::memory_order_relaxed);
    word.sleep(seen, std::chrono::nanoseconds(slice).count());
    const auto waited = NodeClock::now() - start;
    if (changed()) return;
    // A signal ends a sleep early: what is looked for below changes slowly.
    if (waited >= kLookAroundEvery || waited >= options_.timeout) {
      look_around(call, peer, waited);
      if (changed()) return;
    }
  }
}

void NodeGroup::look_around(const Call& call, int peer, NodeClock::duration waited) {
  if (const auto error = bootstrap_->async_error()) throw Error(*error);
  if (const auto gone = processes_->gone(std::chrono::milliseconds(0))) {
    // The world knows its ranks by better numbers than this group does, and may be about to say so.
    const auto until = NodeClock::now() + kForWorldsWord;
    while (NodeClock::now() < until) {
      if (const auto error = bootstrap_->async_error()) throw Error(*error);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    fail(ErrorKind::kPeer, call.name(), ": rank ", *gone, "/", size_, " (process ", processes_->pid(*gone),
         ") is gone (killed, or crashed) [rank ", rank_, "/", size_, "]");
  }
  if (waited >= options_.timeout)
    fail(ErrorKind::kTimeout, call.name(), ": all ranks must come within ", options_.timeout.count(),
         " ms; missing rank", missing(peer), " [rank ", rank_, "/", size_, "]");
}

std::string NodeGroup::missing(int peer) const {
  if (peer >= 0) return concat(" ", peer);
  std::string text;
  for (int r = 0; r < size_; ++r)
    if (board_.seat(r).phase.load(std::memory_order_relaxed) == phase_) text += concat(" ", r);
  return text.empty() ? " unknown" : text;
}

Event NodeGroup::barrier(StreamView stream, std::string_view tag) {
  return run(barrier_call(tag), stream, &NodeGroup::do_barrier);
}

Event NodeGroup::all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                            std::string_view tag) {
  return run(all_gather_call(rank_, size_, part, all, counts, tag), stream, &NodeGroup::do_all_gather);
}

Event NodeGroup::reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                                StreamView stream, std::string_view tag) {
  return run(reduce_scatter_call(rank_, size_, all, part, counts, op, tag), stream, &NodeGroup::do_reduce_scatter);
}

Event NodeGroup::all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream, std::string_view tag) {
  return run(all_reduce_call(in, out, op, tag), stream, &NodeGroup::do_all_reduce);
}

Event NodeGroup::broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) {
  return run(broadcast_call(size_, data, root, tag), stream, &NodeGroup::do_broadcast);
}

Event NodeGroup::send(const Tensor& data, int to, StreamView stream, std::string_view tag) {
  return run(send_call(rank_, size_, data, to, tag), stream, &NodeGroup::do_send);
}

Event NodeGroup::recv(const Tensor& data, int from, StreamView stream, std::string_view tag) {
  return run(recv_call(rank_, size_, data, from, tag), stream, &NodeGroup::do_recv);
}

}  // namespace permafrost
