#pragma once
#include <mpi.h>

#include <memory>
#include <vector>

#include "parallel/group/call.h"
#include "parallel/group/mpi/mpi_group.h"

namespace permafrost {

/// The MPI library's own collectives, one call each: what our backends are measured against (`permafrost bench comm`),
/// and nothing to train with. A wait inside cannot be ended, so a rank whose peer fails is ended by its watch.
///   all_gather      MPI_Allgather; with counts MPI_Allgatherv
///   reduce_scatter  MPI_Reduce_scatter; not in place, because MPI puts the result elsewhere
///   all_reduce      MPI_Allreduce
/// Floating sums have the order that the library likes. kInvalidArgument for a whole beyond 2^31 - 1 elements, which is
/// what counts and displacements of MPI-3 hold; kNotBuilt for all other methods.
class PlainMpiGroup final : public Group {
 public:
  /// Takes over `comm`.
  PlainMpiGroup(std::shared_ptr<MpiShared> shared, MPI_Comm comm);
  ~PlainMpiGroup() override;

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

 private:
  Event run(const Call& call, StreamView stream, void (PlainMpiGroup::*body)(const Call&));
  void do_all_gather(const Call& call);
  void do_reduce_scatter(const Call& call);
  void do_all_reduce(const Call& call);
  void set_counts(const Call& call);

  std::shared_ptr<MpiShared> shared_;
  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<int> counts_, offsets_;  // of the call under way
};

}  // namespace permafrost
