#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/device/buffer.h"
#include "core/kernels/flat_pieces.h"
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
  bool found() const { return param >= 0; }
};

/// Sums the gradients of a step over micro-batches and ranks (docs/numerics.md). One step:
///   begin_step(limits)            or begin_measuring(keep) when no exponents are known yet
///   accumulate(...)               every gradient of a micro-batch of this rank, in any order
///   end_micro_batch(...)          and so on, for each micro-batch in any order
///   settle()
///   -> vote with exponents(), overflow(), bad()
///   sum_kept(limits)              after begin_measuring(true)
///   reduce(...)                   if the vote accepts; otherwise, or after begin_measuring(false), the whole step
///   again
/// Sums live where their memory is, and gradients beside them; contexts are of that device. On CUDA everything but
/// `settle` returns at once, and what accumulate gives to the stream is the same in every step of known exponents, so
/// it can be captured. After construction nothing is allocated.
class OrderFreeSums {
 public:
  /// sums: (layout.elements) i64, or f32 in plain mode; zero at first, and this object's alone until it is gone.
  /// micro_batches: G, per step over all ranks. rank: whose slice `reduce` gives.
  OrderFreeSums(TrainableLayout layout, const ShardSpec& shards, int rank, int64_t micro_batches, SumMode mode,
                const Tensor& sums);

  /// limits: one exponent per parameter (Exponents::limits). The step before must have settled.
  void begin_step(const Context& context, std::span<const int32_t> limits);
  /// Looks at the gradients without adding them: step 0. keep: no parameter gets more than one gradient from this rank,
  /// so they can wait where their sums will be; on CPU alone.
  void begin_measuring(const Context& context, bool keep);
  /// Makes the kept gradients the sums of a step of these limits, with the bits that begin_step(limits) and the same
  /// gradients would have given. Errors: kInvalidArgument when a gradient exceeds its limit.
  void sum_kept(const Context& context, std::span<const int32_t> limits);

  /// gradient: f32, the parameter's elements.
  /// Errors: kShapeMismatch; kInvalidArgument for an unknown parameter or more than G summands of one parameter (on
  /// CUDA: one behind G micro-batches; that a program gives a gradient once is what check_program tests).
  void accumulate(const Context& context, int param, const Tensor& gradient);
  /// All gradients of a micro-batch have been given. micro_batch: global index in the step, for messages.
  /// Errors: kInvalidArgument for more than G micro-batches.
  void end_micro_batch(const Context& context, int64_t micro_batch);
  /// Waits for all of them and looks at what was found. Errors: as Stream::synchronize.
  void settle(const Context& context);

  /// This rank's findings so far, once settled: largest exponent per parameter, whether any exceeded its limit, the
  /// first bad one. A parameter whose gradient was bad is not asked for its limit.
  std::span<const int32_t> exponents() const { return exponents_; }
  bool overflow() const { return overflow_; }
  const BadGradient& bad() const { return bad_; }

  /// Sums over ranks and converts this rank's slice. slice: (shards.count(rank)) f32. Collective. The sums are used up:
  /// begin the next step after this.
  void reduce(const Context& context, Group& group, const Tensor& slice);
  /// Its two halves, one behind the other. `convert` gives a stream the same work in every step, so that it can be
  /// captured; in plain mode `exchange` alone gives the slice, and `convert` nothing.
  void exchange(const Context& context, Group& group, const Tensor& slice);
  void convert(const Context& context, const Tensor& slice) const;

  /// See GradientSink::same_work: of a step whose exponents are known.
  int captured_work() const { return phase_ == Phase::kSumming ? 1 : -1; }

  const TrainableLayout& layout() const { return layout_; }
  SumMode mode() const { return mode_; }

 private:
  enum class Phase : uint8_t { kIdle, kMeasuring, kKeeping, kSumming, kExchanged };
  bool on_cuda() const { return sums_.device().kind == DeviceKind::kCuda; }
  void check(const Context& context) const;
  void make_pieces(int rank);
  void begin(const Context& context, Phase phase);
  void set_scales(const Context& context, std::span<const int32_t> limits);
  void add(const Context& context, size_t param, const Tensor& gradient);
  void look(std::span<const int32_t> ranges, int64_t micro_batch);
  Tensor scales_on_device() const;
  Tensor scale_of(size_t param) const;
  Tensor range_of(size_t param) const;
  Tensor piece(int64_t begin, int64_t end) const;
  Tensor own_sums() const { return piece(shards_.begin(rank_), shards_.end(rank_)); }
  Tensor place_to_keep(const TrainableParam& param) const;
  void check_slice(const Tensor& slice) const;
  void clear_unwritten(const Context& context);

  TrainableLayout layout_;
  ShardSpec shards_;
  int rank_;
  int64_t micro_batches_;
  SumMode mode_;
  Tensor sums_;
  Phase phase_ = Phase::kIdle;
  std::vector<int64_t> added_;  // summands per parameter in this step; on CUDA not counted
  int64_t ended_ = 0;           // micro-batches in this step
  std::vector<int32_t> exponents_;
  bool overflow_ = false;
  BadGradient bad_;

  Buffer scales_;              // the host's, OrderFreeScale per parameter
  Buffer device_scales_;       // on CUDA: their copy
  Buffer ranges_;              // beside the gradients: GradientRange of each parameter in the micro-batch in work
  Buffer seen_ranges_;         // the host's: those of the micro-batches that ended, one row each
  std::vector<int64_t> seen_;  // which ones, until they are looked at
  PieceTable pieces_;          // of this rank's slice
};

}  // namespace permafrost
