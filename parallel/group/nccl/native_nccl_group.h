#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "parallel/group/call.h"
#include "parallel/group/nccl/nccl_communicator.h"
#include "parallel/group/nccl/nccl_world.h"

namespace permafrost {

/// Throws on all ranks when any of them gives an error: what the first says, and who else has one. Collective.
void agree_on_success(Group& host, std::string_view what, const std::optional<Error>& mine);

/// NcclGroup as it is (nccl_group.h has the contract).
class NativeNcclGroup final : public NcclGroup {
 public:
  /// Collective over `host`, which is `owned_host` of groups that were split off.
  NativeNcclGroup(std::shared_ptr<NcclWorld> world, Group& host, std::unique_ptr<Group> owned_host, Stream& stream,
                  std::string name);
  ~NativeNcclGroup() override;

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
  std::optional<Error> async_error() const override { return world_->failure(); }
  void abort(const Error& reason) noexcept override { world_->abort(reason); }
  void register_memory(std::byte* memory, int64_t bytes) override;
  std::string describe() const override;

 private:
  /// How a whole is cut among ranks, in elements.
  struct Pieces {
    std::vector<int64_t>& begin;  // size + 1 of them
    int64_t count(int rank) const { return begin[static_cast<size_t>(rank) + 1] - begin[static_cast<size_t>(rank)]; }
    int64_t at(int rank) const { return begin[static_cast<size_t>(rank)]; }
  };

  void connect();
  Event run(const Call& call, StreamView given, void (NativeNcclGroup::*body)(const Call&, Stream&));
  void do_barrier(const Call& call, Stream& stream);
  void do_all_gather(const Call& call, Stream& stream);
  void do_reduce_scatter(const Call& call, Stream& stream);
  void do_all_reduce(const Call& call, Stream& stream);
  void do_broadcast(const Call& call, Stream& stream);
  void do_send(const Call& call, Stream& stream);
  void do_recv(const Call& call, Stream& stream);
  void copy_own(const Call& call, Stream& stream);
  Pieces pieces_of(const Call& call);  ///< by counts
  Pieces slices_of(const Call& call);  ///< as equal as can be, of an all_reduce
  bool equal(const Pieces& pieces) const;
  void gather(const Call& call, const Pieces& pieces, const std::byte* part, std::byte* all, Stream& stream);
  void reduce_natively(const Call& call, const Pieces& pieces, Stream& stream);
  void check_workspace(const Call& call) const;
  int64_t slot_elements(const Call& call) const;
  void combine(const Call& call, const Pieces& pieces, std::byte* out, Stream& stream);
  void exchange(const Call& call, const Pieces& pieces, int64_t done, int64_t most, Stream& stream);
  void moved(int64_t bytes) const;

  std::shared_ptr<NcclWorld> world_;
  std::unique_ptr<Group> owned_host_;
  Group& host_;
  Stream& stream_;
  std::string name_;
  int rank_;
  int size_;
  int exceptions_;  ///< under way when this was made
  Buffer workspace_;
  Buffer barrier_word_;
  std::shared_ptr<NcclCommunicator> communicator_;  ///< null for one rank
  std::vector<int64_t> begins_;
  uint64_t sequence_ = 0;
  int64_t registered_bytes_ = 0;
  int windows_ = 0;
  std::string not_registered_;  ///< why, of the last that was not
};

}  // namespace permafrost
