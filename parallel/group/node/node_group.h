#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "parallel/group/call.h"
#include "parallel/group/moved_bytes.h"
#include "parallel/group/mpi_loader.h"
#include "parallel/group/node/board.h"
#include "parallel/group/node/shared_memory.h"
#include "parallel/group/process_watch.h"

namespace permafrost {

struct NodeOptions {
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};  ///< longest wait of one call for the other ranks
  MovedBytes* moved = nullptr;    ///< counts what this rank reads from others; outlives the group
  MpiEnvironment* mpi = nullptr;  ///< whose windows are the second choice of memory; outlives the group
  bool force_windows = false;     ///< as if this rank could not open the others' memory: for tests
  Waiting waiting = Waiting::kEager;
  int cores = 0;  ///< that the ranks may use together; 0: those of this process. Ranks without a core each do not spin
};

/// Groups whose ranks share a machine and exchange through memory that all of them see (docs/notes/node_backend.md).
/// Tensors that lie in memory from `allocate` of this group, or of the one it was split from, are read in place by the
/// others; the rest passes through a scratch, in pieces. It may differ by rank where a tensor lies. Beyond the contract
/// of Group: a collective that differs between ranks is an error (kPeer) on all of them, and so is a rank whose process
/// is gone.
class NodeGroup final : public Group {
 public:
  /// Collective over `bootstrap`, whose ranks share a machine (processes or threads). It carries what is rare:
  /// construction, allocations, splits and failures; it must outlive this group and stay out of other use meanwhile.
  /// Errors: kStorage when memory cannot be had or cannot be seen by all.
  NodeGroup(Group& bootstrap, const NodeOptions& options);
  ~NodeGroup() override;

  /// The same for some of `parent`'s ranks; tensors in the parent's memory are read in place here too.
  static std::unique_ptr<NodeGroup> child(const NodeGroup& parent, Group& bootstrap, const NodeOptions& options);

  /// Memory that all ranks of this group see, `bytes` of it, the same on all. Collective; not for the step path. Its
  /// pages are taken at once. Errors, on all ranks: kStorage with the bytes needed and available; kInvalidArgument when
  /// ranks ask for different sizes.
  SharedMemory allocate(std::string name, int64_t bytes);
  /// How often this rank went to sleep while it waited.
  int64_t sleeps() const { return sleeps_.load(std::memory_order_relaxed); }
  /// Whether memory comes from MPI windows, because a rank could not open another's.
  bool uses_windows() const { return windows_; }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
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
  void abort(const Error& reason) noexcept override { bootstrap_->abort(reason); }

 private:
  NodeGroup(std::unique_ptr<Group> owned, Group& bootstrap, const NodeOptions& options, const NodeGroup& parent);
  void set_up(std::shared_ptr<PieceRegistry> parent);
  std::vector<int64_t> gather(int64_t value, std::string_view tag);
  std::optional<SharedMemory> share_file(const std::string& name, int64_t bytes);

  Event run(const Call& call, StreamView stream, void (NodeGroup::*body)(const Call&));
  void do_barrier(const Call& call);
  void do_all_gather(const Call& call);
  void do_reduce_scatter(const Call& call);
  void do_all_reduce(const Call& call);
  void do_broadcast(const Call& call);
  void do_send(const Call& call);
  void do_recv(const Call& call);
  void all_gather_small(const Call& call);
  void all_reduce_small(const Call& call);
  void combine_part(const Call& call, int64_t at, int64_t elements);

  /// Begins a collective: says what this rank calls and where the others find its tensor, and waits for all.
  void open(const Call& call, PieceLocation location);
  /// Waits for all ranks. What each wrote before it came, all see after it.
  void meet(const Call& call);
  /// Where rank's tensor of this call can be read in place; null where it cannot.
  const std::byte* in_place(const Call& call, int rank, int64_t bytes) const;
  const Notice& notice_of(int rank) const { return board_.seat(rank).notices[calls_ % 2]; }
  /// Until `word` is not `seen` any more. peer: whom alone this waits for, or -1.
  void wait(FutexWord& word, uint32_t seen, const Call& call, int peer);
  /// Throws when the wait is in vain.
  void look_around(const Call& call, int peer, std::chrono::steady_clock::duration waited);
  std::string missing(int peer) const;
  void count_moved(int64_t bytes) const {
    if (options_.moved) options_.moved->add(bytes);
  }

  std::unique_ptr<Group> owned_bootstrap_;
  Group* bootstrap_;
  NodeOptions options_;
  int rank_;
  int size_;
  bool windows_ = false;
  bool spins_ = false;
  std::shared_ptr<PieceRegistry> registry_;
  std::vector<int64_t> pids_;
  std::unique_ptr<ProcessWatch> processes_;
  Board board_;

  uint32_t phase_ = 0;  // meetings so far
  uint64_t calls_ = 0;  // collectives so far that met
  std::atomic<int64_t> sleeps_ = 0;
  std::atomic<bool> busy_ = false;
  mutable std::mutex mutex_;
  std::optional<Error> broken_;  // guarded by mutex_
  std::vector<const std::byte*> direct_;
  std::vector<const std::byte*> sources_;
  std::vector<int64_t> even_counts_;
};

}  // namespace permafrost
