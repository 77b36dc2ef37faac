#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "parallel/group/group.h"

namespace permafrost {

/// Loss of one micro-batch; `index` is its global place in the step.
struct MicroBatchLoss {
  int64_t index = 0;
  double loss = 0;
};

/// What one rank says after its micro-batches.
struct Ballot {
  bool finite = true;                      ///< losses and gradients
  bool overflow = false;                   ///< a gradient exceeded its exponent
  bool stop = false;                       ///< a signal asked this rank to stop
  uint64_t schedule = 0;                   ///< hash of plan, step and position: ranks that disagree must not go on
  int32_t bad_param = -1;                  ///< first parameter whose gradient was not finite, -1: none
  int64_t bad_micro_batch = -1;            ///< its micro-batch, or that of a loss that was not finite
  int64_t bad_sample = -1;                 ///< first sample id of that micro-batch
  int64_t left_out_samples = 0;            ///< of this rank's micro-batches, because their data could not be used
  int64_t left_out_tokens = 0;             ///< predicted tokens of these
  std::span<const int32_t> exponents;      ///< per parameter
  std::span<const MicroBatchLoss> losses;  ///< of this rank's real micro-batches
};

/// What all ranks know afterwards, equal on all of them.
struct Vote {
  bool finite = true;
  bool overflow = false;
  bool stop = false;
  int bad_rank = -1;  ///< the rank whose bad micro-batch has the lowest index; the next three are its words
  int32_t bad_param = -1;
  int64_t bad_micro_batch = -1;
  int64_t bad_sample = -1;
  int64_t left_out_samples = 0, left_out_tokens = 0;  ///< sums over ranks
  std::vector<int32_t> exponents;                     ///< maximum over ranks
  std::vector<double> losses;                         ///< [G], in global order
  /// Sum of losses in global order.
  double loss_sum() const;
};

/// One vote per step in one all_gather of ranks x message_bytes(). Memory is taken at construction.
class Voter {
 public:
  /// micro_batches: G. A rank reports at most ceil(G / ranks) losses.
  Voter(int ranks, int64_t params, int64_t micro_batches);

  int64_t message_bytes() const { return message_bytes_; }
  static int64_t message_bytes(int ranks, int64_t params, int64_t micro_batches);
  /// Collective. Errors: kPeer when ranks stand at different places of the schedule; kInternal when the losses are not
  /// one per micro-batch; kInvalidArgument for a ballot of the wrong size.
  const Vote& cast(Group& group, const Ballot& ballot, StreamView stream = StreamView::caller());

 private:
  struct Header;
  void write(std::byte* message, const Ballot& ballot) const;
  void read(const std::byte* message, int rank);

  int ranks_;
  int64_t params_;
  int64_t micro_batches_;
  int64_t slots_;
  int64_t message_bytes_;
  std::vector<std::byte> messages_;
  std::vector<bool> loss_seen_;
  uint64_t schedule_ = 0;
  Vote vote_;
};

}  // namespace permafrost
