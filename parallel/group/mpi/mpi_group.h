#pragma once
#include <mpi.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "core/device/buffer.h"
#include "parallel/group/call.h"
#include "parallel/group/mpi/watch.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {

/// What the environment and all its groups share.
struct MpiShared {
  MpiOptions options;
  std::unique_ptr<Watch> watch;
  bool open = true;  ///< between MPI_Init and MPI_Finalize
};

/// Group over an MPI communicator of its own. Collectives are built from nonblocking point-to-point messages, polled by
/// the calling thread, for four reasons: a wait can end when a peer fails or time is up and can say which ranks are
/// missing; counts above 2^31 are plain loops; floating sums have a stated order; and reduce-scatter is several times
/// faster than Open MPI 4.1's (docs/notes/mpi_collectives.md).
class MpiGroup final : public Group {
 public:
  /// Takes over `comm`.
  MpiGroup(std::shared_ptr<MpiShared> shared, MPI_Comm comm, Waiting waiting = Waiting::kEager);
  ~MpiGroup() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Group> split(int color, int key, std::string_view tag, Waiting waiting) override;
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
  void abort(const Error& reason) noexcept override { shared_->watch->abort(reason); }
  MPI_Comm communicator() const { return comm_; }

 private:
  /// Requests under way, with the rank each waits for.
  struct Pending {
    std::vector<MPI_Request> requests;
    std::vector<int> peers;
  };

  Event run(const Call& call, StreamView stream, void (MpiGroup::*body)(const Call&));
  void do_barrier(const Call& call);
  void do_all_gather(const Call& call);
  void do_reduce_scatter(const Call& call);
  void do_all_reduce(const Call& call);
  void do_broadcast(const Call& call);
  void do_send(const Call& call);
  void do_recv(const Call& call);

  void all_reduce_small(const Call& call);
  /// Posts block `round` of everybody's part of a reduce-scatter; receives go to half `round` % 2 of the scratch.
  void post_reduce_round(const Call& call, int64_t round);
  void combine_round(const Call& call, int64_t round);
  int64_t elements_in_round(const Call& call, int rank, int64_t round) const;

  void post_send(Pending& pending, const Call& call, const std::byte* data, int64_t bytes, int to);
  void post_recv(Pending& pending, const Call& call, std::byte* data, int64_t bytes, int from);
  /// Until all requests are complete; throws when time is up or a peer failed, leaving the group broken.
  void wait(Pending& pending, const Call& call);
  [[noreturn]] void give_up(Pending& pending, const Error& error);
  void prepare_scratch();
  int mpi_tag() const { return 1 + static_cast<int>(sequence_ % 16384); }
  int peer_after(int step) const { return (rank_ + step) % size_; }
  int peer_before(int step) const { return (rank_ - step + size_) % size_; }

  std::shared_ptr<MpiShared> shared_;
  MPI_Comm comm_;
  Waiting waiting_;
  int rank_ = 0;
  int size_ = 1;
  uint64_t sequence_ = 0;  // of collectives; also separates the messages of neighbouring ones
  std::atomic<bool> busy_ = false;
  mutable std::mutex mutex_;
  std::optional<Error> broken_;  // guarded by mutex_

  std::array<Pending, 2> pending_;
  Buffer scratch_;  // from the first reduction on: 2 halves x (size - 1) blocks
  int64_t block_bytes_ = 0;
  std::vector<const std::byte*> sources_;
  std::vector<int64_t> even_counts_;
};

}  // namespace permafrost
