#include "parallel/group/mpi/mpi_group.h"

#include <glog/logging.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "core/base/narrow.h"
#include "parallel/group/combine.h"
#include "parallel/group/mpi/mpi_check.h"

namespace permafrost {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(20);  // then give the core away between polls
constexpr auto kYield = std::chrono::milliseconds(5);  // then sleep between polls
constexpr auto kSleep = std::chrono::microseconds(100);
constexpr auto kShortSleep = std::chrono::microseconds(50);  // of groups that sleep at once
constexpr auto kIdle = std::chrono::seconds(2);  // behind which they sleep longer: nothing comes for some time
constexpr auto kLongSleep = std::chrono::milliseconds(5);

constexpr int64_t kScratchBytes = int64_t{8} << 20;    // per group that reduces
constexpr int64_t kLargestBlock = int64_t{512} << 10;  // measured: docs/notes/mpi_collectives.md
constexpr int kPeersAtOnce = 8;                        // of an all_gather
constexpr int kUserMessage = 0;                        // MPI tag of send and recv; collectives use 1...

}  // namespace

MpiGroup::MpiGroup(std::shared_ptr<MpiShared> shared, MPI_Comm comm, Waiting waiting)
    : shared_(std::move(shared)), comm_(comm), waiting_(waiting) {
  mpi_check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", "a group");
  mpi_check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", "a group");
  mpi_check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", "a group");
  for (Pending& pending : pending_) {
    pending.requests.reserve(static_cast<size_t>(2 * size_));
    pending.peers.reserve(static_cast<size_t>(2 * size_));
  }
  sources_.resize(static_cast<size_t>(size_));
  even_counts_.resize(static_cast<size_t>(size_));
}

MpiGroup::~MpiGroup() {
  if (shared_->open && !shared_->watch->failed() && !async_error()) MPI_Comm_free(&comm_);
}

std::optional<Error> MpiGroup::async_error() const {
  if (const auto failure = shared_->watch->failure()) return failure->error();
  const std::lock_guard lock(mutex_);
  return broken_;
}

Event MpiGroup::run(const Call& call, StreamView stream, void (MpiGroup::*body)(const Call&)) {
  return stream.submit([this, call, body] {
    if (const auto error = async_error()) throw Error(*error);
    PERMAFROST_CHECK(shared_->open, call.name(), ": MPI must not be finalised yet; got a call after close");
    PERMAFROST_CHECK(!busy_.exchange(true), call.name(),
                     ": one call at a time per group; got a second one while another runs");
    const struct Done {
      std::atomic<bool>& busy;
      ~Done() { busy = false; }
    } done{busy_};
    // Point-to-point calls are made by two ranks only, so they do not count: the sequence is equal on all ranks.
    if (call.operation != Operation::kSend && call.operation != Operation::kRecv) ++sequence_;
    VLOG(2) << call.name() << " #" << sequence_ << " " << call.bytes() << " bytes [rank " << rank_ << "/" << size_
            << "]";
    try {
      (this->*body)(call);
    } catch (const Error& error) {
      const std::lock_guard lock(mutex_);
      if (!broken_) broken_ = error;
      throw;
    }
  });
}

Event MpiGroup::barrier(StreamView stream, std::string_view tag) {
  return run(barrier_call(tag), stream, &MpiGroup::do_barrier);
}

Event MpiGroup::all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                           std::string_view tag) {
  return run(all_gather_call(rank_, size_, part, all, counts, tag), stream, &MpiGroup::do_all_gather);
}

Event MpiGroup::reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                               StreamView stream, std::string_view tag) {
  return run(reduce_scatter_call(rank_, size_, all, part, counts, op, tag), stream, &MpiGroup::do_reduce_scatter);
}

Event MpiGroup::all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream, std::string_view tag) {
  return run(all_reduce_call(in, out, op, tag), stream, &MpiGroup::do_all_reduce);
}

Event MpiGroup::broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) {
  return run(broadcast_call(size_, data, root, tag), stream, &MpiGroup::do_broadcast);
}

Event MpiGroup::send(const Tensor& data, int to, StreamView stream, std::string_view tag) {
  return run(send_call(rank_, size_, data, to, tag), stream, &MpiGroup::do_send);
}

Event MpiGroup::recv(const Tensor& data, int from, StreamView stream, std::string_view tag) {
  return run(recv_call(rank_, size_, data, from, tag), stream, &MpiGroup::do_recv);
}

std::unique_ptr<Group> MpiGroup::split(int color, int key, std::string_view tag, Waiting waiting) {
  Call call = barrier_call(tag);
  call.operation = Operation::kSplit;
  // MPI_Comm_split cannot be interrupted: meet first, where a failed peer is noticed.
  run(call, StreamView::caller(), &MpiGroup::do_barrier);
  MPI_Comm made = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, key, &made), "MPI_Comm_split", call.name());
  if (made == MPI_COMM_NULL) return nullptr;
  return std::make_unique<MpiGroup>(shared_, made, waiting);
}

void MpiGroup::post_send(Pending& pending, const Call& call, const std::byte* data, int64_t bytes, int to) {
  if (bytes <= 0) return;
  MPI_Request request = MPI_REQUEST_NULL;
  const int tag = call.operation == Operation::kSend ? kUserMessage : mpi_tag();
  const int code = MPI_Isend(data, narrow<int>(bytes), MPI_BYTE, to, tag, comm_, &request);
  if (code != MPI_SUCCESS)
    throw mpi_error(code, "MPI_Isend", call.name());  // a name is made only here: steps allocate nothing
  pending.requests.push_back(request);
  pending.peers.push_back(to);
}

void MpiGroup::post_recv(Pending& pending, const Call& call, std::byte* data, int64_t bytes, int from) {
  if (bytes <= 0) return;
  MPI_Request request = MPI_REQUEST_NULL;
  const int tag = call.operation == Operation::kRecv ? kUserMessage : mpi_tag();
  const int code = MPI_Irecv(data, narrow<int>(bytes), MPI_BYTE, from, tag, comm_, &request);
  if (code != MPI_SUCCESS) throw mpi_error(code, "MPI_Irecv", call.name());
  if (shared_->options.moved && call.operation != Operation::kBarrier && call.operation != Operation::kSplit)
    shared_->options.moved->add(bytes);
  pending.requests.push_back(request);
  pending.peers.push_back(from);
}

void MpiGroup::wait(Pending& pending, const Call& call) {
  const auto start = Clock::now();
  while (true) {
    if (shared_->watch->failed()) give_up(pending, shared_->watch->failure()->error());
    int done = 0;
    const int code =
        MPI_Testall(narrow<int>(std::ssize(pending.requests)), pending.requests.data(), &done, MPI_STATUSES_IGNORE);
    if (code != MPI_SUCCESS) give_up(pending, mpi_error(code, "MPI_Testall", call.name()));
    if (done) break;
    const auto waited = Clock::now() - start;
    if (waited > shared_->options.timeout) {
      std::string missing;
      for (int r = 0; r < size_; ++r)
        for (size_t i = 0; i < pending.requests.size(); ++i)
          if (pending.peers[i] == r && pending.requests[i] != MPI_REQUEST_NULL) {
            missing += concat(" ", r);
            break;
          }
      give_up(pending, Error(ErrorKind::kTimeout,
                             concat(call.name(), ": all ranks must come within ", shared_->options.timeout.count(),
                                    " ms; missing rank", missing.empty() ? " unknown" : missing, " [rank ", rank_, "/",
                                    size_, "]")));
    }
    if (waiting_ == Waiting::kSleeping)
      std::this_thread::sleep_for(waited > kIdle ? std::chrono::microseconds(kLongSleep) : kShortSleep);
    else if (waited > kYield)
      std::this_thread::sleep_for(kSleep);
    else if (waited > kSpin)
      sched_yield();
  }
  pending.requests.clear();
  pending.peers.clear();
}

// The messages under way point at the caller's memory, which is freed once this throws: the other ranks are told
// before, and no MPI call follows (see watch.h).
void MpiGroup::give_up(Pending& pending, const Error& error) {
  if (shared_->watch->failed())
    shared_->watch->acknowledge();
  else
    shared_->watch->announce(error);
  pending.requests.clear();
  pending.peers.clear();
  throw Error(error);
}

void MpiGroup::do_barrier(const Call& call) {
  if (size_ == 1) return;
  // Dissemination: in round k everyone tells the rank 2^k ahead; after log2(N) rounds everyone heard of everyone.
  std::byte token{};
  std::byte heard{};
  for (int step = 1; step < size_; step *= 2) {
    post_recv(pending_[0], call, &heard, 1, peer_before(step));
    post_send(pending_[0], call, &token, 1, peer_after(step));
    wait(pending_[0], call);
  }
}

void MpiGroup::do_all_gather(const Call& call) {
  const int64_t size = size_of(call.dtype);
  const int64_t chunk = shared_->options.chunk_bytes;
  const int64_t own_bytes = call.count(rank_, size_) * size;
  std::byte* own = call.out + call.offset(rank_, size_) * size;
  if (own_bytes > 0 && call.in != own) std::memcpy(own, call.in, static_cast<size_t>(own_bytes));
  for (int first = 1; first < size_; first += kPeersAtOnce) {
    const int last = std::min(first + kPeersAtOnce, size_);
    int64_t longest = own_bytes;
    for (int step = first; step < last; ++step)
      longest = std::max(longest, call.count(peer_before(step), size_) * size);
    for (int64_t at = 0; at < longest; at += chunk) {
      for (int step = first; step < last; ++step) {
        const int from = peer_before(step);
        const int64_t bytes = call.count(from, size_) * size;
        post_recv(pending_[0], call, call.out + call.offset(from, size_) * size + at, std::min(chunk, bytes - at),
                  from);
      }
      for (int step = first; step < last; ++step)
        post_send(pending_[0], call, own + at, std::min(chunk, own_bytes - at), peer_after(step));
      wait(pending_[0], call);
    }
  }
}

void MpiGroup::prepare_scratch() {
  if (scratch_.bytes() > 0 || size_ == 1) return;
  const int64_t block = kScratchBytes / (2 * (size_ - 1));
  block_bytes_ = std::clamp<int64_t>(block / 4096 * 4096, 4096, kLargestBlock);
  block_bytes_ = std::min(block_bytes_, shared_->options.chunk_bytes / 64 * 64);
  scratch_ = Buffer("mpi reduce scratch", std::max(2 * (size_ - 1) * block_bytes_, (size_ - 1) * kSmallAllReduceBytes));
}

int64_t MpiGroup::elements_in_round(const Call& call, int rank, int64_t round) const {
  const int64_t block = block_bytes_ / size_of(call.dtype);
  return std::clamp<int64_t>(call.count(rank, size_) - round * block, 0, block);
}

void MpiGroup::post_reduce_round(const Call& call, int64_t round) {
  Pending& pending = pending_[static_cast<size_t>(round % 2)];
  const int64_t size = size_of(call.dtype);
  std::byte* half = scratch_.data() + (round % 2) * (size_ - 1) * block_bytes_;
  for (int step = 1; step < size_; ++step)
    post_recv(pending, call, half + (step - 1) * block_bytes_, elements_in_round(call, rank_, round) * size,
              peer_before(step));
  for (int step = 1; step < size_; ++step) {
    const int to = peer_after(step);
    post_send(pending, call, call.in + call.offset(to, size_) * size + round * block_bytes_,
              elements_in_round(call, to, round) * size, to);
  }
}

void MpiGroup::combine_round(const Call& call, int64_t round) {
  const int64_t elements = elements_in_round(call, rank_, round);
  if (elements == 0) return;
  const std::byte* half = scratch_.data() + (round % 2) * (size_ - 1) * block_bytes_;
  for (int step = 1; step < size_; ++step)
    sources_[static_cast<size_t>(peer_before(step))] = half + (step - 1) * block_bytes_;
  sources_[static_cast<size_t>(rank_)] =
      call.in + call.offset(rank_, size_) * size_of(call.dtype) + round * block_bytes_;
  combine(call.op, call.dtype, sources_, call.out + round * block_bytes_, elements);
}

// Each rank receives its part from everybody, block by block, and sums while the next block travels. In place is safe:
// a rank writes only its own part, which it sends to nobody.
void MpiGroup::do_reduce_scatter(const Call& call) {
  if (size_ == 1) return copy_alone(call);
  prepare_scratch();
  int64_t largest = 0;
  for (int r = 0; r < size_; ++r) largest = std::max(largest, call.count(r, size_));
  const int64_t rounds = div_up(largest * size_of(call.dtype), block_bytes_);
  if (rounds > 0) post_reduce_round(call, 0);
  for (int64_t round = 0; round < rounds; ++round) {
    if (round + 1 < rounds) post_reduce_round(call, round + 1);
    wait(pending_[static_cast<size_t>(round % 2)], call);
    combine_round(call, round);
  }
}

void MpiGroup::all_reduce_small(const Call& call) {
  for (int step = 1; step < size_; ++step) {
    post_recv(pending_[0], call, scratch_.data() + (step - 1) * kSmallAllReduceBytes, call.bytes(), peer_before(step));
    sources_[static_cast<size_t>(peer_before(step))] = scratch_.data() + (step - 1) * kSmallAllReduceBytes;
    post_send(pending_[0], call, call.in, call.bytes(), peer_after(step));
  }
  sources_[static_cast<size_t>(rank_)] = call.in;
  wait(pending_[0], call);
  combine(call.op, call.dtype, sources_, call.out, call.elements);
}

void MpiGroup::do_all_reduce(const Call& call) {
  if (size_ == 1 || call.elements == 0) return copy_alone(call);
  prepare_scratch();
  if (call.bytes() <= std::min(kSmallAllReduceBytes, shared_->options.chunk_bytes)) return all_reduce_small(call);
  for (int r = 0; r < size_; ++r)
    even_counts_[static_cast<size_t>(r)] = call.elements * (r + 1) / size_ - call.elements * r / size_;
  Call half = call;
  half.counts = even_counts_;
  half.out = call.out + half.offset(rank_, size_) * size_of(call.dtype);
  do_reduce_scatter(half);
  half.in = half.out;
  half.out = call.out;
  do_all_gather(half);
}

void MpiGroup::do_broadcast(const Call& call) {
  // Binomial tree over ranks counted from the root: receive once, pass on to the ranks 2^k ahead.
  const int self = (rank_ - call.peer + size_) % size_;
  const auto real = [&](int relative) { return (relative + call.peer) % size_; };
  const int64_t chunk = shared_->options.chunk_bytes;
  for (int64_t at = 0; at < call.bytes(); at += chunk) {
    const int64_t bytes = std::min(chunk, call.bytes() - at);
    int step = 1;
    while (step < size_ && (self & step) == 0) step *= 2;
    if (self != 0) {
      post_recv(pending_[0], call, call.out + at, bytes, real(self - step));
      wait(pending_[0], call);
    }
    for (int below = step / 2; below >= 1; below /= 2)
      if (self + below < size_) post_send(pending_[0], call, call.in + at, bytes, real(self + below));
    wait(pending_[0], call);
  }
}

void MpiGroup::do_send(const Call& call) {
  for (int64_t at = 0; at < call.bytes(); at += shared_->options.chunk_bytes) {
    post_send(pending_[0], call, call.in + at, std::min(shared_->options.chunk_bytes, call.bytes() - at), call.peer);
    wait(pending_[0], call);
  }
}

void MpiGroup::do_recv(const Call& call) {
  for (int64_t at = 0; at < call.bytes(); at += shared_->options.chunk_bytes) {
    post_recv(pending_[0], call, call.out + at, std::min(shared_->options.chunk_bytes, call.bytes() - at), call.peer);
    wait(pending_[0], call);
  }
}

}  // namespace permafrost
