#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "parallel/reduce/vote.h"

namespace permafrost {

struct LossScaleConfig {
  int32_t initial = 16;         ///< log2 of the scale of step 0, in LossScale::kSmallest..kLargest
  int64_t growth_steps = 2000;  ///< accepted steps in a row behind which the scale doubles; 1 and up
};

/// What the gradient of the loss is multiplied by under f16 compute, so that gradients of activations are neither lost
/// below 2^-24 nor infinite above 65504: a power of two, the same on all ranks, since it follows from votes alone
/// (docs/notes/fp16.md). Sums of gradients are multiplied by its inverse behind the reduction, which is exact, and all
/// that is kept of gradients (Exponents, the checkpoint) is that of unscaled ones. One step:
///   value()                       into the programs' input `loss_scale`
///   limits(...)                   for the sums, which see scaled gradients
///   exponents(...)                of the ballot
///   -> vote; not finite: again(vote), and the step anew where it says so
///   inverse()                     times the reduced gradients
///   accept()
/// A scale that was not asked for is 1 for ever. After construction nothing is allocated.
class LossScale {
 public:
  static constexpr int32_t kSmallest = -10, kLargest = 24;  ///< log2

  /// Nothing for a compute dtype that needs none. Errors: kConfig for an initial scale or growth_steps out of range.
  LossScale(std::optional<LossScaleConfig> config, int64_t params);

  bool used() const { return config_.has_value(); }
  float value() const;    ///< 2^log2
  float inverse() const;  ///< 2^-log2

  /// Limits of scaled gradients from those of unscaled ones, and exponents of unscaled gradients from those measured.
  /// Valid until the next call of the same. Errors: kInvalidArgument when they are not one per parameter.
  std::span<const int32_t> limits(std::span<const int32_t> unscaled);
  std::span<const int32_t> exponents(std::span<const int32_t> scaled);

  /// After a vote that is not finite: true when a smaller scale may help, which is then in use, and the step is to be
  /// run again from the same micro-batches. False when it is an error of the run: a loss is not finite, whatever the
  /// scale, or the scale is the smallest.
  bool again(const Vote& vote);
  /// After a step that counts: one step nearer to a scale twice as large.
  void accept();

  /// For the checkpoint.
  struct Position {
    int32_t exponent = 0;        ///< log2 of the scale of the next step
    int64_t accepted_steps = 0;  ///< since it changed
    bool operator==(const Position&) const = default;
  };
  std::optional<Position> position() const;  ///< nothing where no scale is used
  /// Errors: kWeights where a scale is used and there is none, or one out of range.
  void restore(const std::optional<Position>& position);

 private:
  std::optional<LossScaleConfig> config_;
  Position position_;
  std::vector<int32_t> limits_, exponents_;
};

}  // namespace permafrost
