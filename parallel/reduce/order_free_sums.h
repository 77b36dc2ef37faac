#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/kernels/order_free.h"
#include "parallel/group/group.h"
#include "parallel/shard/shard_spec.h"

namespace permafrost {

/// Where trainable parameters lie in the flat trainable space; ascending, gaps allowed (they hold zeros).
struct TrainableParam {
  std::string name;
  int64_t offset = 0;
  int64_t elements = 0;
};
struct TrainableLayout {
  std::vector<TrainableParam> params;
  int64_t elements = 0;  ///< of the space, gaps included
};

enum class SumMode : uint8_t {
  kOrderFree,  ///< int64: the same bits for any order, any number of ranks
  kPlain,      ///< f32, in the order of this rank's micro-batches and then of ranks: control runs only
};

/// First gradient that was not finite.
struct BadGradient {
  int param = -1;
  int64_t micro_batch = -1;
  int64_t element = -1;  ///< flat index in the parameter
  bool found() const { return param >= 0; }
};

/// Sums the gradients of a step over micro-batches and ranks (docs/numerics.md). One step:
///   begin_step(limits)            or begin_measuring(keep) when no exponents are known yet
///   accumulate(...)               every gradient of every micro-batch of this rank, in any order
///   -> vote with exponents(), overflow(), bad()
///   sum_kept(limits)              after begin_measuring(true)
///   reduce(...)                   if the vote accepts; otherwise, or after begin_measuring(false), the whole step
///   again
/// After construction nothing is allocated.
class OrderFreeSums {
 public:
  /// sums: (layout.elements) i64, or f32 in plain mode; zero at first, and this object's alone until it is gone.
  /// micro_batches: G, per step over all ranks.
  OrderFreeSums(TrainableLayout layout, const ShardSpec& shards, int64_t micro_batches, SumMode mode,
                const Tensor& sums);

  /// limits: one exponent per parameter (Exponents::limits).
  void begin_step(std::span<const int32_t> limits);
  /// Looks at the gradients without adding them: step 0. keep: no parameter gets more than one gradient from this rank,
  /// so they can wait where their sums will be.
  void begin_measuring(bool keep);
  /// Makes the kept gradients the sums of a step of these limits, with the bits that begin_step(limits) and the same
  /// gradients would have given. Errors: kInvalidArgument when a gradient exceeds its limit.
  void sum_kept(const Context& context, std::span<const int32_t> limits);

  /// gradient: f32, the parameter's elements. micro_batch: global index in the step, for messages.
  /// Errors: kShapeMismatch; kInvalidArgument for an unknown parameter or more than G summands of one parameter.
  void accumulate(const Context& context, int param, const Tensor& gradient, int64_t micro_batch);

  /// This rank's findings so far: largest exponent per parameter, whether any exceeded its limit, the first bad one.
  /// A parameter that had a bad gradient is not asked for its limit any more.
  std::span<const int32_t> exponents() const { return exponents_; }
  bool overflow() const { return overflow_; }
  const BadGradient& bad() const { return bad_; }

  /// Sums over ranks and converts this rank's slice. slice: (shards.count(rank)) f32. Collective. The sums are used up:
  /// begin the next step after this.
  void reduce(const Context& context, Group& group, const Tensor& slice);

  const TrainableLayout& layout() const { return layout_; }
  SumMode mode() const { return mode_; }

 private:
  enum class Phase : uint8_t { kIdle, kMeasuring, kKeeping, kSumming };
  void begin(Phase phase);
  void set_scales(std::span<const int32_t> limits);
  void add(const Context& context, size_t param, const Tensor& gradient);
  Tensor range_of(size_t param);
  Tensor piece(int64_t begin, int64_t end) const;
  Tensor place_to_keep(const TrainableParam& param) const;
  void clear_unwritten();
  void convert(const Context& context, int64_t begin, int64_t end, const Tensor& slice) const;

  TrainableLayout layout_;
  ShardSpec shards_;
  int64_t micro_batches_;
  SumMode mode_;
  Tensor sums_;
  Phase phase_ = Phase::kIdle;
  std::vector<OrderFreeScale> scales_;
  std::vector<int64_t> added_;   // summands per parameter in this step
  std::vector<int32_t> ranges_;  // GradientRange of all gradients of a parameter in this step
  std::vector<int32_t> exponents_;
  bool overflow_ = false;
  BadGradient bad_;
};

}  // namespace permafrost
