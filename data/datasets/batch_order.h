#pragma once
#include <cstdint>
#include <vector>

#include "data/datasets/dataset.h"

namespace permafrost {

/// Which sample stands where in training: a pure function of (seed, epoch, position), entered anywhere in O(1).
/// An epoch is ceil(samples / global_batch) steps. A step is global_batch / micro_batch micro-batches, numbered
/// through the epoch; micro-batch m holds positions [m * micro_batch, (m + 1) * micro_batch). Positions at the end of
/// the last step that have no sample are padding: nothing is dropped and nothing seen twice.
struct BatchOrder {
  static constexpr int64_t kPadding = -1;

  int64_t samples = 0;
  int64_t global_batch = 1;
  int64_t micro_batch = 1;  ///< divides global_batch
  uint64_t seed = 0;
  bool shuffle = true;  ///< a new permutation every epoch; otherwise the order of the dataset
  /// The datasets of a mix, one behind the other; together they are `samples`. Empty for one dataset. In a shuffled
  /// epoch, which still has `samples` positions, part k has samples * weight_k / (sum of weights) of them, rounded so
  /// that the sum is right. A part goes through its samples in passes of their own, each a permutation, and goes on
  /// in the next epoch where it stopped. Not shuffled, weights say nothing: every sample comes once.
  std::vector<MixPart> parts = {};

  /// Throws kConfig when the numbers contradict each other or, shuffled, a weight is so small that its part would never
  /// come; kData when there are no samples.
  void check() const;

  int64_t steps_per_epoch() const { return (samples + global_batch - 1) / global_batch; }
  int64_t micro_batches_per_step() const { return global_batch / micro_batch; }
  int64_t micro_batches_per_epoch() const { return steps_per_epoch() * micro_batches_per_step(); }

  /// Positions that part k has in every epoch.
  int64_t quota_of(size_t k) const;

  /// Sample at a position of an epoch, 0 <= position < steps_per_epoch() * global_batch; kPadding behind the last.
  int64_t sample_at(uint32_t epoch, int64_t position) const;
};

}  // namespace permafrost
