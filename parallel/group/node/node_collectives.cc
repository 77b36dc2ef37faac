// What the ranks of a node group say and read; who may read what when stands in docs/notes/node_backend.md.
#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "parallel/group/combine.h"
#include "parallel/group/copy.h"
#include "parallel/group/node/node_group.h"

namespace permafrost {
namespace {

void copy_bytes(std::byte* target, const std::byte* source, int64_t bytes) {
  if (target != source) copy_past_caches(target, source, bytes);
}

/// Differs, but for one chance in 2^64, when the calls do.
uint64_t signature_of(const Call& call) {
  uint64_t hash = 14695981039346656037ULL;  // FNV-1a over 64-bit words
  const auto add = [&hash](uint64_t value) { hash = (hash ^ value) * 1099511628211ULL; };
  add(static_cast<uint64_t>(call.operation));
  add(static_cast<uint64_t>(call.dtype));
  add(static_cast<uint64_t>(call.op));
  add(static_cast<uint64_t>(call.elements));
  add(static_cast<uint64_t>(call.peer + 1));
  for (const char letter : call.tag) add(static_cast<unsigned char>(letter));
  for (const int64_t count : call.counts) add(static_cast<uint64_t>(count));
  return hash;
}

/// Of a message; send and recv need not have one tag.
uint64_t message_signature(const Call& call) {
  return static_cast<uint64_t>(call.elements) << 8 | static_cast<uint64_t>(call.dtype);
}

int64_t largest_part_bytes(const Call& call, int size) {
  int64_t largest = 0;
  for (int r = 0; r < size; ++r) largest = std::max(largest, call.count(r, size));
  return largest * size_of(call.dtype);
}

}  // namespace

void NodeGroup::open(const Call& call, PieceLocation location) {
  ++calls_;
  Notice& own = board_.seat(rank_).notices[calls_ % 2];
  own = {signature_of(call), location};
  meet(call);
  for (int r = 0; r < size_; ++r)
    if (notice_of(r).signature != own.signature)
      fail(ErrorKind::kPeer, "group: all ranks must make the same call; got ", call.name(), " of ", call.elements, " ",
           to_string(call.dtype), " on rank ", rank_, " and another call on rank ", r);
}

const std::byte* NodeGroup::in_place(const Call& call, int rank, int64_t bytes) const {
  const PieceLocation location = notice_of(rank).location;
  if (location.piece == 0) return nullptr;
  const std::byte* address = registry_->address(location, bytes);
  if (!address)
    fail(ErrorKind::kPeer, call.name(), ": the tensor of rank ", rank, " lies in node memory that rank ", rank_,
         " does not have any more");
  return address;
}

void NodeGroup::do_barrier(const Call& call) {
  if (size_ > 1) open(call, {});
}

// The tray of this call's parity is free: who read it last has since come to the call between.
void NodeGroup::all_gather_small(const Call& call) {
  const int64_t size = size_of(call.dtype);
  copy_bytes(board_.tray(rank_, calls_ + 1), call.in, call.count(rank_, size_) * size);
  open(call, {});
  for (int r = 0; r < size_; ++r) {
    const int64_t bytes = call.count(r, size_) * size;
    std::byte* target = call.out + call.offset(r, size_) * size;
    copy_bytes(target, r == rank_ ? call.in : board_.tray(r, calls_), bytes);
    if (r != rank_) count_moved(bytes);
  }
}

void NodeGroup::do_all_gather(const Call& call) {
  if (size_ == 1) return copy_alone(call);
  if (call.elements == 0) return;
  if (largest_part_bytes(call, size_) <= Board::kSmallBytes) return all_gather_small(call);
  const int64_t size = size_of(call.dtype);
  const auto bytes_of_rank = [&](int r) { return call.count(r, size_) * size; };
  std::byte* own_place = call.out + call.offset(rank_, size_) * size;
  const int64_t own_bytes = bytes_of_rank(rank_);
  copy_bytes(own_place, call.in, own_bytes);
  PieceLocation location = registry_->find(call.in, own_bytes);
  if (location.piece == 0) location = registry_->find(own_place, own_bytes);
  const auto write_piece = [&](int64_t round) {
    const int64_t at = round * Board::kChunkBytes;
    if (location.piece == 0 && at < own_bytes)
      copy_bytes(board_.scratch(rank_, round), own_place + at, std::min(Board::kChunkBytes, own_bytes - at));
  };
  write_piece(0);
  open(call, location);
  int64_t rounds = 1;
  for (int r = 0; r < size_; ++r) {
    direct_[static_cast<size_t>(r)] = in_place(call, r, bytes_of_rank(r));
    if (!direct_[static_cast<size_t>(r)]) rounds = std::max(rounds, div_up(bytes_of_rank(r), Board::kChunkBytes));
  }
  for (int64_t round = 0; round < rounds; ++round) {
    write_piece(round + 1);
    const int64_t at = round * Board::kChunkBytes;
    for (int step = 1; step < size_; ++step) {
      const int r = (rank_ + step) % size_;  // not all at one rank's memory at once
      const std::byte* whole = direct_[static_cast<size_t>(r)];
      std::byte* target = call.out + call.offset(r, size_) * size;
      if (!whole) {
        const int64_t bytes = std::clamp<int64_t>(bytes_of_rank(r) - at, 0, Board::kChunkBytes);
        copy_bytes(target + at, board_.scratch(r, round), bytes);
        count_moved(bytes);
      } else if (round == 0) {
        copy_bytes(target, whole, bytes_of_rank(r));
        count_moved(bytes_of_rank(r));
      }
    }
    meet(call);
  }
}

// Elements [at, at + elements) of this rank's part, from the sources' like places.
void NodeGroup::combine_part(const Call& call, int64_t at, int64_t elements) {
  if (elements <= 0) return;
  combine(call.op, call.dtype, sources_, call.out + at * size_of(call.dtype), elements);
  count_moved((size_ - 1) * elements * size_of(call.dtype));
}

// In place is safe: part r is read and written by rank r alone, the others read only their own parts.
void NodeGroup::do_reduce_scatter(const Call& call) {
  if (size_ == 1) return copy_alone(call);
  if (call.elements == 0) return;
  const int64_t size = size_of(call.dtype);
  const int64_t block = Board::kChunkBytes / size_ / 64 * 64;  // of one rank's part, in a half of another's scratch
  const PieceLocation location = registry_->find(call.in, call.bytes());
  const auto bytes_of_rank = [&](int r) { return call.count(r, size_) * size; };
  const auto write_blocks = [&](int64_t round) {
    if (location.piece != 0) return;
    for (int r = 0; r < size_; ++r)
      if (r != rank_)
        copy_bytes(board_.scratch(rank_, round) + r * block, call.in + call.offset(r, size_) * size + round * block,
                   std::clamp<int64_t>(bytes_of_rank(r) - round * block, 0, block));
  };
  write_blocks(0);
  open(call, location);
  const int64_t begin = call.offset(rank_, size_) * size;
  bool all_direct = true;
  for (int r = 0; r < size_; ++r) {
    const std::byte* whole = r == rank_ ? call.in : in_place(call, r, call.bytes());
    direct_[static_cast<size_t>(r)] = whole ? whole + begin : nullptr;
    // Every rank must see the same, so a rank's own tensor counts as others see it.
    all_direct = all_direct && notice_of(r).location.piece != 0;
  }
  const int64_t step = all_direct ? call.bytes() : block;
  const int64_t rounds = std::max<int64_t>(1, div_up(largest_part_bytes(call, size_), step));
  for (int64_t round = 0; round < rounds; ++round) {
    if (round + 1 < rounds) write_blocks(round + 1);
    for (int r = 0; r < size_; ++r) {
      const std::byte* whole = direct_[static_cast<size_t>(r)];
      sources_[static_cast<size_t>(r)] = whole ? whole + round * step : board_.scratch(r, round) + rank_ * block;
    }
    combine_part(call, round * step / size, std::min(step, bytes_of_rank(rank_) - round * step) / size);
    meet(call);
  }
}

void NodeGroup::all_reduce_small(const Call& call) {
  static_assert(kSmallAllReduceBytes <= Board::kSmallBytes);
  copy_bytes(board_.tray(rank_, calls_ + 1), call.in, call.bytes());
  open(call, {});
  for (int r = 0; r < size_; ++r) sources_[static_cast<size_t>(r)] = r == rank_ ? call.in : board_.tray(r, calls_);
  combine_part(call, 0, call.elements);
}

void NodeGroup::do_all_reduce(const Call& call) {
  if (size_ == 1 || call.elements == 0) return copy_alone(call);
  if (call.bytes() <= kSmallAllReduceBytes) return all_reduce_small(call);
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

void NodeGroup::do_broadcast(const Call& call) {
  if (size_ == 1 || call.elements == 0) return;
  const bool root = rank_ == call.peer;
  const bool small = call.bytes() <= Board::kSmallBytes;
  const PieceLocation location = root && !small ? registry_->find(call.in, call.bytes()) : PieceLocation{};
  const auto write_piece = [&](int64_t round) {
    const int64_t at = round * Board::kChunkBytes;
    if (root && location.piece == 0 && at < call.bytes())
      copy_bytes(board_.scratch(rank_, round), call.in + at, std::min(Board::kChunkBytes, call.bytes() - at));
  };
  if (!root) count_moved(call.bytes());
  if (small) {
    if (root) copy_bytes(board_.tray(rank_, calls_ + 1), call.in, call.bytes());
    open(call, {});
    if (!root) copy_bytes(call.out, board_.tray(call.peer, calls_), call.bytes());
    return;
  }
  write_piece(0);
  open(call, location);
  const std::byte* whole = in_place(call, call.peer, call.bytes());
  const int64_t rounds = whole ? 1 : div_up(call.bytes(), Board::kChunkBytes);
  for (int64_t round = 0; round < rounds; ++round) {
    write_piece(round + 1);
    const int64_t at = round * Board::kChunkBytes;
    if (!root && whole)
      copy_bytes(call.out, whole, call.bytes());
    else if (!root)
      copy_bytes(call.out + at, board_.scratch(call.peer, round), std::min(Board::kChunkBytes, call.bytes() - at));
    meet(call);
  }
}

// The sender's scratch is free: large collectives end with a meeting, and a rank makes one call at a time.
void NodeGroup::do_send(const Call& call) {
  if (call.elements == 0) return;
  Board::MailBox& mail = board_.mail(rank_, call.peer);
  const auto wait_until_taken = [&](uint32_t count) {
    for (uint32_t taken = mail.taken.value.load(std::memory_order_acquire); static_cast<int32_t>(count - taken) > 0;
         taken = mail.taken.value.load(std::memory_order_acquire))
      wait(mail.taken, taken, call, call.peer);
  };
  uint32_t sent = mail.sent.value.load(std::memory_order_relaxed);  // only this rank changes it
  const PieceLocation location = registry_->find(call.in, call.bytes());
  mail.notice = {message_signature(call), location};
  const int64_t rounds = location.piece != 0 ? 1 : div_up(call.bytes(), Board::kChunkBytes);
  for (int64_t round = 0; round < rounds; ++round) {
    if (location.piece == 0) {
      if (round >= 2) wait_until_taken(sent - 1);  // the half that is written next
      const int64_t at = round * Board::kChunkBytes;
      copy_bytes(board_.scratch(rank_, round), call.in + at, std::min(Board::kChunkBytes, call.bytes() - at));
    }
    mail.sent.post(++sent);
  }
  wait_until_taken(sent);
}

void NodeGroup::do_recv(const Call& call) {
  if (call.elements == 0) return;
  Board::MailBox& mail = board_.mail(call.peer, rank_);
  uint32_t taken = mail.taken.value.load(std::memory_order_relaxed);  // only this rank changes it
  const std::byte* whole = nullptr;
  int64_t rounds = 1;
  for (int64_t round = 0; round < rounds; ++round) {
    if (mail.sent.value.load(std::memory_order_acquire) == taken) wait(mail.sent, taken, call, call.peer);
    if (round == 0) {
      if (mail.notice.signature != message_signature(call))
        fail(ErrorKind::kPeer, "group: send and recv must agree; got ", mail.notice.signature >> 8, " elements of ",
             to_string(static_cast<DType>(mail.notice.signature & 0xff)), " from rank ", call.peer, " for ",
             call.name(), " of ", call.elements, " ", to_string(call.dtype));
      if (mail.notice.location.piece != 0) {
        whole = registry_->address(mail.notice.location, call.bytes());
        if (!whole) fail(ErrorKind::kPeer, call.name(), ": the sender's node memory is gone on this rank");
      }
      rounds = whole ? 1 : div_up(call.bytes(), Board::kChunkBytes);
    }
    const int64_t at = round * Board::kChunkBytes;
    if (whole)
      copy_bytes(call.out, whole, call.bytes());
    else
      copy_bytes(call.out + at, board_.scratch(call.peer, round), std::min(Board::kChunkBytes, call.bytes() - at));
    mail.taken.post(++taken);
  }
  count_moved(call.bytes());
}

}  // namespace permafrost
