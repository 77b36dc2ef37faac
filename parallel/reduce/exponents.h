#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace permafrost {

/// What all ranks know of the size of each parameter's gradient: exponents (GradientRange::exponent) as agreed in the
/// votes so far. Part of the checkpoint, since the next step's scales follow from it.
class Exponents {
 public:
  /// Default bits of room for gradients to grow between two steps before a step must be repeated.
  static constexpr int32_t kHeadroom = 12;
  /// What is kept falls by one bit a vote where gradients fall, and is at most so many bits above the last vote (with
  /// a larger headroom, so many fewer): a gradient that all but vanished may be back at its old size within a step,
  /// as when ReLUs die and come back.
  static constexpr int32_t kMostAbove = 12;

  explicit Exponents(int64_t params, int32_t headroom = kHeadroom);

  /// False before the first vote: the step runs for the maxima first (OrderFreeSums::begin_measuring).
  bool known() const { return known_; }
  /// Takes the agreed maxima of a vote, accepted or to be repeated: a repetition has the same gradients, so it fits,
  /// and learning the same again right away changes nothing but by one bit's fall. A parameter whose gradient was zero
  /// keeps what was known of it.
  void learn(std::span<const int32_t> agreed);
  /// Exponents of the next step's scales: agreed + headroom; for a parameter never seen but zero, as if it were as
  /// large as the largest of all (0 when all were zero).
  const std::vector<int32_t>& limits() const { return limits_; }

  /// For the checkpoint.
  std::span<const int32_t> agreed() const { return agreed_; }
  /// Errors: kInvalidArgument when the number of parameters differs.
  void restore(std::span<const int32_t> agreed);

 private:
  int32_t headroom_;
  void set_limits();

  std::vector<int32_t> agreed_;
  std::vector<int32_t> limits_;  // kept, so that the step allocates nothing
  bool known_ = false;
};

}  // namespace permafrost
