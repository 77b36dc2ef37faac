#include <glog/logging.h>

#include <algorithm>

#include "core/base/narrow.h"
#include "core/device/cuda.h"
#include "core/kernels/combine_ranks_cuda.h"
#include "parallel/group/nccl/native_nccl_group.h"

namespace permafrost {
namespace {

cudaStream_t native(Stream& stream) { return static_cast<cudaStream_t>(cuda::native_stream(*stream.queue())); }

ncclRedOp_t native(ReduceOp op) { return op == ReduceOp::kSum ? ncclSum : op == ReduceOp::kMax ? ncclMax : ncclMin; }

/// Of what is reduced by NCCL itself; what is only moved goes as bytes.
ncclDataType_t native(DType dtype) {
  return dtype == DType::kU8 ? ncclUint8 : dtype == DType::kI32 ? ncclInt32 : ncclInt64;
}

bool floating(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF64; }

size_t bytes_in(int64_t elements, const Call& call) { return narrow<size_t>(elements * size_of(call.dtype)); }

}  // namespace

Event NativeNcclGroup::run(const Call& call, StreamView given, void (NativeNcclGroup::*body)(const Call&, Stream&)) {
  PERMAFROST_CHECK(given.is_caller() || given.device() == world_->device, call.name(),
                   ": the stream must be of cuda:", world_->device.index, "; got one of ",
                   given.device().kind == DeviceKind::kCpu ? "the CPU" : "another device");
  if (const auto failure = async_error()) throw Error(*failure);
  // Point-to-point calls are made by two ranks only, so they do not count: the sequence is equal on all ranks.
  if (call.operation != Operation::kSend && call.operation != Operation::kRecv) ++sequence_;
  VLOG(2) << call.name() << " #" << sequence_ << " " << call.bytes() << " bytes [rank " << rank_ << "/" << size_ << "]";
  Stream& stream = given.is_caller() ? stream_ : *given.stream();
  const Event event = stream.submit([&] { (this->*body)(call, stream); },
                                    [world = std::weak_ptr(world_)] {
                                      const auto alive = world.lock();
                                      if (!alive) return;
                                      if (const auto failure = alive->failure()) throw Error(*failure);
                                    });
  if (!given.is_caller()) return event;
  event.wait();
  return {};
}

void NativeNcclGroup::moved(int64_t bytes) const {
  if (world_->options.moved) world_->options.moved->add(bytes);
}

Event NativeNcclGroup::barrier(StreamView stream, std::string_view tag) {
  return run(barrier_call(tag), stream, &NativeNcclGroup::do_barrier);
}

Event NativeNcclGroup::all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts,
                                  StreamView stream, std::string_view tag) {
  return run(all_gather_call(rank_, size_, part, all, counts, tag, world_->device), stream,
             &NativeNcclGroup::do_all_gather);
}

Event NativeNcclGroup::reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts,
                                      ReduceOp op, StreamView stream, std::string_view tag) {
  const Call call = reduce_scatter_call(rank_, size_, all, part, counts, op, tag, world_->device);
  check_workspace(call);
  return run(call, stream, &NativeNcclGroup::do_reduce_scatter);
}

Event NativeNcclGroup::all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream,
                                  std::string_view tag) {
  const Call call = all_reduce_call(in, out, op, tag, world_->device);
  check_workspace(call);
  return run(call, stream, &NativeNcclGroup::do_all_reduce);
}

Event NativeNcclGroup::broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) {
  return run(broadcast_call(size_, data, root, tag, world_->device), stream, &NativeNcclGroup::do_broadcast);
}

Event NativeNcclGroup::send(const Tensor& data, int to, StreamView stream, std::string_view tag) {
  return run(send_call(rank_, size_, data, to, tag, world_->device), stream, &NativeNcclGroup::do_send);
}

Event NativeNcclGroup::recv(const Tensor& data, int from, StreamView stream, std::string_view tag) {
  return run(recv_call(rank_, size_, data, from, tag, world_->device), stream, &NativeNcclGroup::do_recv);
}

NativeNcclGroup::Pieces NativeNcclGroup::pieces_of(const Call& call) {
  for (int r = 0; r < size_; ++r)
    begins_[static_cast<size_t>(r) + 1] = begins_[static_cast<size_t>(r)] + call.count(r, size_);
  return {begins_};
}

NativeNcclGroup::Pieces NativeNcclGroup::slices_of(const Call& call) {
  for (int r = 0; r <= size_; ++r) begins_[static_cast<size_t>(r)] = call.elements * r / size_;
  return {begins_};
}

bool NativeNcclGroup::equal(const Pieces& pieces) const {
  for (int r = 1; r < size_; ++r)
    if (pieces.count(r) != pieces.count(0)) return false;
  return true;
}

/// A group of one.
void NativeNcclGroup::copy_own(const Call& call, Stream& stream) {
  if (call.in != call.out && call.elements > 0) cuda::copy(*stream.queue(), call.out, call.in, call.bytes());
}

void NativeNcclGroup::do_barrier(const Call& call, Stream& stream) {
  if (size_ == 1) return;
  void* word = barrier_word_.data();
  communicator_->launch(call, native(stream), [&](ncclComm_t comm) {
    return communicator_->api().AllReduce(word, word, 1, ncclInt32, ncclMax, comm, native(stream));
  });
}

void NativeNcclGroup::gather(const Call& call, const Pieces& pieces, const std::byte* part, std::byte* all,
                             Stream& stream) {
  const NcclApi& api = communicator_->api();
  communicator_->launch(call, native(stream), [&](ncclComm_t comm) {
    if (equal(pieces))
      return api.AllGather(part, all, bytes_in(pieces.count(0), call), ncclUint8, comm, native(stream));
    for (int r = 0; r < size_; ++r) {
      if (pieces.count(r) == 0) continue;
      std::byte* place = all + pieces.at(r) * size_of(call.dtype);
      const ncclResult_t result = api.Broadcast(r == rank_ ? part : place, place, bytes_in(pieces.count(r), call),
                                                ncclUint8, r, comm, native(stream));
      if (NcclCommunicator::gone_wrong(result)) return result;
    }
    return ncclSuccess;
  });
}

void NativeNcclGroup::do_all_gather(const Call& call, Stream& stream) {
  if (call.elements == 0) return;
  if (size_ == 1) return copy_own(call, stream);
  const Pieces pieces = pieces_of(call);
  gather(call, pieces, call.in, call.out, stream);
  moved((call.elements - pieces.count(rank_)) * size_of(call.dtype));
}

void NativeNcclGroup::reduce_natively(const Call& call, const Pieces& pieces, Stream& stream) {
  const NcclApi& api = communicator_->api();
  communicator_->launch(call, native(stream), [&](ncclComm_t comm) {
    if (equal(pieces))
      return api.ReduceScatter(call.in, call.out, narrow<size_t>(pieces.count(0)), native(call.dtype), native(call.op),
                               comm, native(stream));
    for (int r = 0; r < size_; ++r) {
      if (pieces.count(r) == 0) continue;
      const ncclResult_t result =
          api.Reduce(call.in + pieces.at(r) * size_of(call.dtype), r == rank_ ? call.out : nullptr,
                     narrow<size_t>(pieces.count(r)), native(call.dtype), native(call.op), r, comm, native(stream));
      if (NcclCommunicator::gone_wrong(result)) return result;
    }
    return ncclSuccess;
  });
}

void NativeNcclGroup::do_reduce_scatter(const Call& call, Stream& stream) {
  if (call.elements == 0) return;
  if (size_ == 1) return copy_own(call, stream);
  const Pieces pieces = pieces_of(call);
  if (floating(call.dtype))
    combine(call, pieces, call.out, stream);
  else
    reduce_natively(call, pieces, stream);
  moved((size_ - 1) * pieces.count(rank_) * size_of(call.dtype));
}

void NativeNcclGroup::do_all_reduce(const Call& call, Stream& stream) {
  if (call.elements == 0) return;
  if (size_ == 1) return copy_own(call, stream);
  const Pieces slices = slices_of(call);
  const int64_t own = slices.count(rank_);
  if (floating(call.dtype)) {
    std::byte* mine = call.out + slices.at(rank_) * size_of(call.dtype);
    combine(call, slices, mine, stream);
    gather(call, slices, mine, call.out, stream);
  } else {
    communicator_->launch(call, native(stream), [&](ncclComm_t comm) {
      return communicator_->api().AllReduce(call.in, call.out, narrow<size_t>(call.elements), native(call.dtype),
                                            native(call.op), comm, native(stream));
    });
  }
  moved(((size_ - 1) * own + call.elements - own) * size_of(call.dtype));
}

/// What a rank of a floating reduction gets of each other at once: whole groups of 16 bytes.
int64_t NativeNcclGroup::slot_elements(const Call& call) const {
  return world_->options.workspace_bytes / (size_ - 1) / 16 * 16 / size_of(call.dtype);
}

void NativeNcclGroup::check_workspace(const Call& call) const {
  if (size_ == 1 || !floating(call.dtype) || slot_elements(call) > 0) return;
  fail(ErrorKind::kNotBuilt, call.name(), ": floating reductions need a workspace of at least ", 16 * (size_ - 1),
       " bytes (NcclOptions::workspace_bytes), or integers; got ", world_->options.workspace_bytes, " bytes and ",
       to_string(call.dtype));
}

// Rank r alone writes piece r, and nobody reads it of rank r, so `out` may lie in the input.
void NativeNcclGroup::combine(const Call& call, const Pieces& pieces, std::byte* out, Stream& stream) {
  const int64_t slot = slot_elements(call), own = pieces.count(rank_);
  int64_t longest = 0;
  for (int r = 0; r < size_; ++r) longest = std::max(longest, pieces.count(r));
  const Context context{.device = world_->device, .pool = nullptr, .stream = stream};
  const auto op = call.op == ReduceOp::kSum   ? cuda::RankReduction::kSum
                  : call.op == ReduceOp::kMax ? cuda::RankReduction::kMax
                                              : cuda::RankReduction::kMin;
  for (int64_t done = 0; done < longest; done += slot) {
    exchange(call, pieces, done, slot, stream);
    const int64_t count = std::clamp<int64_t>(own - done, 0, slot);
    const cuda::RankPieces all{.own = call.in + (pieces.at(rank_) + done) * size_of(call.dtype),
                               .others = workspace_.data(),
                               .stride_bytes = slot * size_of(call.dtype),
                               .rank = rank_,
                               .ranks = size_};
    if (count > 0) cuda::combine_ranks(context, op, call.dtype, all, out + done * size_of(call.dtype), count);
  }
}

/// Elements [done, done + most) of each piece go to the piece's rank.
void NativeNcclGroup::exchange(const Call& call, const Pieces& pieces, int64_t done, int64_t most, Stream& stream) {
  const NcclApi& api = communicator_->api();
  const auto left = [&](int r) { return std::clamp<int64_t>(pieces.count(r) - done, 0, most); };
  communicator_->launch(call, native(stream), [&](ncclComm_t comm) {
    ncclResult_t result = ncclSuccess;
    for (int r = 0; r < size_ && !NcclCommunicator::gone_wrong(result); ++r) {
      if (r == rank_) continue;
      const std::byte* from = call.in + (pieces.at(r) + done) * size_of(call.dtype);
      std::byte* to = workspace_.data() + (r < rank_ ? r : r - 1) * most * size_of(call.dtype);
      if (left(r) > 0) result = api.Send(from, bytes_in(left(r), call), ncclUint8, r, comm, native(stream));
      if (left(rank_) > 0 && !NcclCommunicator::gone_wrong(result))
        result = api.Recv(to, bytes_in(left(rank_), call), ncclUint8, r, comm, native(stream));
    }
    return result;
  });
}

void NativeNcclGroup::do_broadcast(const Call& call, Stream& stream) {
  if (call.elements == 0 || size_ == 1) return;
  communicator_->launch(call, native(stream), [&](ncclComm_t comm) {
    return communicator_->api().Broadcast(call.in, call.out, bytes_in(call.elements, call), ncclUint8, call.peer, comm,
                                          native(stream));
  });
  if (rank_ != call.peer) moved(call.bytes());
}

void NativeNcclGroup::do_send(const Call& call, Stream& stream) {
  if (call.elements == 0) return;
  communicator_->launch(call, native(stream), [&](ncclComm_t comm) {
    return communicator_->api().Send(call.in, bytes_in(call.elements, call), ncclUint8, call.peer, comm,
                                     native(stream));
  });
}

void NativeNcclGroup::do_recv(const Call& call, Stream& stream) {
  if (call.elements == 0) return;
  communicator_->launch(call, native(stream), [&](ncclComm_t comm) {
    return communicator_->api().Recv(call.out, bytes_in(call.elements, call), ncclUint8, call.peer, comm,
                                     native(stream));
  });
  moved(call.bytes());
}

}  // namespace permafrost
