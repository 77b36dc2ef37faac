#include "parallel/reduce/vote.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>

#include "core/base/narrow.h"
#include "core/kernels/order_free.h"

namespace permafrost {

/// Followed by params exponents (i32, padded to 8 bytes) and slots losses (MicroBatchLoss; index -1: none).
struct Voter::Header {
  uint64_t schedule = 0;
  int64_t bad_micro_batch = -1;
  int64_t bad_sample = -1;
  int64_t left_out_samples = 0;
  int64_t left_out_tokens = 0;
  int32_t bad_param = -1;
  uint8_t finite = 1;
  uint8_t overflow = 0;
  uint8_t stop = 0;
  uint8_t unused = 0;
};

namespace {

int64_t exponent_bytes(int64_t params) { return round_up(params * static_cast<int64_t>(sizeof(int32_t)), 8); }

std::string hex(uint64_t number) {
  char text[24];
  std::snprintf(text, sizeof text, "%" PRIx64, number);
  return text;
}

}  // namespace

double Vote::loss_sum() const {
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum;
}

Voter::Voter(int ranks, int64_t params, int64_t micro_batches)
    : ranks_(ranks), params_(params), micro_batches_(micro_batches) {
  PERMAFROST_CHECK(ranks >= 1 && params >= 0 && micro_batches >= 1,
                   "vote: ranks and micro-batches must be >= 1, parameters >= 0; got ", ranks, ", ", micro_batches,
                   ", ", params);
  slots_ = div_up(micro_batches, ranks);
  message_bytes_ = message_bytes(ranks, params, micro_batches);
  messages_.resize(static_cast<size_t>(ranks * message_bytes_));
  vote_.exponents.resize(static_cast<size_t>(params));
  vote_.losses.resize(static_cast<size_t>(micro_batches));
  loss_seen_.resize(static_cast<size_t>(micro_batches));
}

int64_t Voter::message_bytes(int ranks, int64_t params, int64_t micro_batches) {
  return static_cast<int64_t>(sizeof(Header)) + exponent_bytes(params) +
         div_up(micro_batches, ranks) * static_cast<int64_t>(sizeof(MicroBatchLoss));
}

void Voter::write(std::byte* message, const Ballot& ballot) const {
  Header header;
  header.schedule = ballot.schedule;
  header.bad_micro_batch = ballot.bad_micro_batch;
  header.bad_sample = ballot.bad_sample;
  header.left_out_samples = ballot.left_out_samples;
  header.left_out_tokens = ballot.left_out_tokens;
  header.bad_param = ballot.bad_param;
  header.finite = ballot.finite;
  header.overflow = ballot.overflow;
  header.stop = ballot.stop;
  std::memcpy(message, &header, sizeof header);
  message += sizeof header;
  if (!ballot.exponents.empty()) std::memcpy(message, ballot.exponents.data(), ballot.exponents.size_bytes());
  message += exponent_bytes(params_);
  for (int64_t slot = 0; slot < slots_; ++slot, message += sizeof(MicroBatchLoss)) {
    const MicroBatchLoss none{-1, 0};
    const auto s = static_cast<size_t>(slot);
    std::memcpy(message, s < ballot.losses.size() ? &ballot.losses[s] : &none, sizeof none);
  }
}

void Voter::read(const std::byte* message, int rank) {
  Header header;
  std::memcpy(&header, message, sizeof header);
  message += sizeof header;
  if (rank == 0) schedule_ = header.schedule;
  if (header.schedule != schedule_)
    fail(ErrorKind::kPeer, "vote: all ranks must be at one place of the schedule; got ", hex(schedule_), " on rank 0, ",
         hex(header.schedule), " on rank ", rank);
  vote_.overflow |= header.overflow != 0;
  vote_.stop |= header.stop != 0;
  vote_.left_out_samples += header.left_out_samples;
  vote_.left_out_tokens += header.left_out_tokens;
  if (!header.finite) {
    vote_.finite = false;
    if (vote_.bad_rank < 0 || header.bad_micro_batch < vote_.bad_micro_batch) {
      vote_.bad_rank = rank;
      vote_.bad_param = header.bad_param;
      vote_.bad_micro_batch = header.bad_micro_batch;
      vote_.bad_sample = header.bad_sample;
    }
  }
  for (size_t p = 0; p < vote_.exponents.size(); ++p) {
    int32_t exponent = 0;
    std::memcpy(&exponent, message + p * sizeof exponent, sizeof exponent);
    vote_.exponents[p] = std::max(vote_.exponents[p], exponent);
  }
  message += exponent_bytes(params_);
  for (int64_t slot = 0; slot < slots_; ++slot, message += sizeof(MicroBatchLoss)) {
    MicroBatchLoss entry;
    std::memcpy(&entry, message, sizeof entry);
    if (entry.index < 0) continue;
    if (entry.index >= micro_batches_ || loss_seen_[static_cast<size_t>(entry.index)])
      fail(ErrorKind::kInternal, "vote: each micro-batch in 0..", micro_batches_ - 1,
           " must have one loss; got a second or unknown one, ", entry.index, ", from rank ", rank);
    loss_seen_[static_cast<size_t>(entry.index)] = true;
    vote_.losses[static_cast<size_t>(entry.index)] = entry.loss;
  }
}

const Vote& Voter::cast(Group& group, const Ballot& ballot, StreamView stream) {
  PERMAFROST_CHECK(group.size() == ranks_, "vote: the group must have ", ranks_, " ranks; got ", group.size());
  PERMAFROST_CHECK(std::ssize(ballot.exponents) == params_, "vote: one exponent per parameter (", params_,
                   ") is needed; got ", ballot.exponents.size());
  PERMAFROST_CHECK(std::ssize(ballot.losses) <= slots_, "vote: a rank has at most ", slots_, " micro-batches; got ",
                   ballot.losses.size());
  std::byte* own = messages_.data() + group.rank() * message_bytes_;
  write(own, ballot);
  const Tensor part(own, DType::kU8, Shape{message_bytes_});
  const Tensor all(messages_.data(), DType::kU8, Shape{std::ssize(messages_)});
  group.all_gather(part, all, {}, stream, "vote").wait();

  vote_.finite = true;
  vote_.overflow = vote_.stop = false;
  vote_.left_out_samples = vote_.left_out_tokens = 0;
  vote_.bad_rank = -1;
  vote_.bad_param = -1;
  vote_.bad_micro_batch = vote_.bad_sample = -1;
  std::ranges::fill(vote_.exponents, kZeroExponent);
  std::fill(loss_seen_.begin(), loss_seen_.end(), false);
  for (int r = 0; r < ranks_; ++r) read(messages_.data() + r * message_bytes_, r);
  const auto missing = std::ranges::find(loss_seen_, false);
  if (missing != loss_seen_.end())
    fail(ErrorKind::kInternal, "vote: each micro-batch must have one loss; got none for ",
         missing - loss_seen_.begin());
  return vote_;
}

}  // namespace permafrost
