#include "parallel/reduce/order_free_sums.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/narrow.h"

namespace permafrost {
namespace {

void check_layout(const TrainableLayout& layout) {
  int64_t end = 0;
  for (const TrainableParam& param : layout.params) {
    PERMAFROST_CHECK(param.offset >= end && param.elements >= 0,
                     "order_free: parameters must ascend without overlap; got offset ", param.offset, " below ", end,
                     " [param=", param.name, "]");
    end = param.offset + param.elements;
  }
  PERMAFROST_CHECK(end <= layout.elements, "order_free: parameters must end within ", layout.elements,
                   " elements; got ", end);
}

}  // namespace

OrderFreeSums::OrderFreeSums(TrainableLayout layout, const ShardSpec& shards, int64_t micro_batches, SumMode mode,
                             const Tensor& sums)
    : layout_(std::move(layout)),
      shards_(shards),
      micro_batches_(micro_batches),
      mode_(mode),
      sums_(sums),
      scales_(layout_.params.size()),
      added_(layout_.params.size()),
      ranges_(layout_.params.size()),
      exponents_(layout_.params.size()) {
  check_layout(layout_);
  PERMAFROST_CHECK(shards_.elements() == layout_.elements, "order_free: shards must divide the ", layout_.elements,
                   " elements of the layout; got ", shards_.elements());
  PERMAFROST_CHECK(micro_batches_ >= 1, "order_free: micro-batches must be >= 1; got ", micro_batches_);
  const TensorSpec want{Shape{layout_.elements}, mode_ == SumMode::kPlain ? DType::kF32 : DType::kI64};
  if (!sums_.defined() || sums_.spec() != want)
    fail(ErrorKind::kShapeMismatch, "order_free: sums must be ", want, "; got ", sums_.spec());
}

void OrderFreeSums::begin(Phase phase) {
  phase_ = phase;
  std::ranges::fill(added_, 0);
  std::ranges::fill(ranges_, 0);
  std::ranges::fill(exponents_, kZeroExponent);
  overflow_ = false;
  bad_ = {};
}

void OrderFreeSums::set_scales(std::span<const int32_t> limits) {
  PERMAFROST_CHECK(limits.size() == scales_.size(), "order_free: limits must be one per parameter (", scales_.size(),
                   "); got ", limits.size());
  for (size_t i = 0; i < limits.size(); ++i) scales_[i] = OrderFreeScale::make(limits[i], micro_batches_);
}

void OrderFreeSums::begin_step(std::span<const int32_t> limits) {
  set_scales(limits);
  begin(Phase::kSumming);
}

void OrderFreeSums::begin_measuring(bool keep) { begin(keep ? Phase::kKeeping : Phase::kMeasuring); }

Tensor OrderFreeSums::piece(int64_t begin, int64_t end) const { return sums_.rows(begin, end); }

/// The second half of the memory of its sums, so that these can be written from the front.
Tensor OrderFreeSums::place_to_keep(const TrainableParam& param) const {
  const Tensor target = piece(param.offset, param.offset + param.elements);
  const int64_t bytes = param.elements * size_of(DType::kF32);
  return {static_cast<std::byte*>(target.raw()) + target.bytes() - bytes, DType::kF32, Shape{param.elements}};
}

void OrderFreeSums::sum_kept(const Context& context, std::span<const int32_t> limits) {
  PERMAFROST_CHECK(phase_ == Phase::kKeeping,
                   "order_free: sum_kept must follow begin_measuring(true) and its gradients");
  set_scales(limits);
  constexpr int64_t kBlock = 16384;
  std::array<float, kBlock> block;
  for (size_t p = 0; p < layout_.params.size(); ++p) {
    const TrainableParam& place = layout_.params[p];
    PERMAFROST_CHECK(exponents_[p] <= scales_[p].exponent, "order_free: kept gradients must be below 2^",
                     scales_[p].exponent, "; got one of exponent ", exponents_[p], " [param=", place.name, "]");
    if (added_[p] == 0 || mode_ == SumMode::kPlain) continue;
    const float* kept = place_to_keep(place).data<float>();
    for (int64_t i = 0; i < place.elements; i += kBlock) {
      const int64_t n = std::min(kBlock, place.elements - i);
      std::copy_n(kept + i, n, block.data());  // the sums may reach into what was kept of them
      order_free_add(context, scales_[p], {block.data(), DType::kF32, Shape{n}},
                     piece(place.offset + i, place.offset + i + n), GradMode::kOverwrite, range_of(p));
    }
  }
  phase_ = Phase::kSumming;
}

void OrderFreeSums::accumulate(const Context& context, int param, const Tensor& gradient, int64_t micro_batch) {
  PERMAFROST_CHECK(phase_ != Phase::kIdle, "order_free: begin_step or begin_measuring must come before accumulate");
  PERMAFROST_CHECK(param >= 0 && param < std::ssize(layout_.params), "order_free: parameter must be in 0..",
                   std::ssize(layout_.params) - 1, "; got ", param);
  const auto p = static_cast<size_t>(param);
  const TrainableParam& place = layout_.params[p];
  if (gradient.elements() != place.elements)
    fail(ErrorKind::kShapeMismatch, "order_free: gradient must have ", place.elements, " elements; got ",
         gradient.shape(), " [param=", place.name, "]");
  PERMAFROST_CHECK(added_[p] < micro_batches_, "order_free: at most ", micro_batches_,
                   " gradients per step have room; got one more [param=", place.name, "]");
  PERMAFROST_CHECK(phase_ != Phase::kKeeping || added_[p] == 0,
                   "order_free: one gradient of a parameter can be kept; got one more [param=", place.name, "]");
  add(context, p, gradient);
  ++added_[p];
  const GradientRange range{ranges_[p]};
  exponents_[p] = range.exponent();
  if (!range.finite()) {
    const int64_t element = first_non_finite(gradient);  // none: it was one of the gradients before
    // The lowest micro-batch wins, then the lowest parameter: the same finding for any order.
    if (element >= 0 &&
        (!bad_.found() || micro_batch < bad_.micro_batch || (micro_batch == bad_.micro_batch && param < bad_.param)))
      bad_ = {param, micro_batch, element};
  } else if (phase_ == Phase::kSumming && mode_ == SumMode::kOrderFree && range.largest_bits != 0) {
    overflow_ = overflow_ || range.exponent() > scales_[p].exponent;
  }
}

Tensor OrderFreeSums::range_of(size_t param) { return {&ranges_[param], DType::kI32, Shape{1}}; }

void OrderFreeSums::add(const Context& context, size_t param, const Tensor& gradient) {
  const TrainableParam& place = layout_.params[param];
  const Tensor range = range_of(param);
  if (phase_ == Phase::kMeasuring) return gradient_range(context, gradient, range);
  const Tensor target = piece(place.offset, place.offset + place.elements);
  const GradMode mode = added_[param] == 0 ? GradMode::kOverwrite : GradMode::kAdd;
  if (mode_ == SumMode::kPlain) return plain_add(context, gradient, target, mode, range);
  if (phase_ == Phase::kSumming) return order_free_add(context, scales_[param], gradient, target, mode, range);
  plain_add(context, gradient, place_to_keep(place), GradMode::kOverwrite, range);  // a copy
}

void OrderFreeSums::clear_unwritten() {
  for (size_t p = 0; p < layout_.params.size(); ++p) {
    const TrainableParam& place = layout_.params[p];
    if (added_[p] > 0 || place.elements == 0) continue;
    const Tensor target = piece(place.offset, place.offset + place.elements);
    std::memset(target.raw(), 0, static_cast<size_t>(target.bytes()));
  }
}

void OrderFreeSums::convert(const Context& context, int64_t begin, int64_t end, const Tensor& slice) const {
  int64_t at = begin;
  const auto zero_until = [&](int64_t until) {  // gaps between parameters
    if (until > at) std::memset(slice.data<float>() + (at - begin), 0, static_cast<size_t>(until - at) * sizeof(float));
    at = std::max(at, until);
  };
  for (size_t p = 0; p < layout_.params.size(); ++p) {
    const int64_t from = std::max(begin, layout_.params[p].offset);
    const int64_t to = std::min(end, layout_.params[p].offset + layout_.params[p].elements);
    if (from >= to) continue;
    zero_until(from);
    order_free_value(context, scales_[p], piece(from, to), slice.rows(from - begin, to - begin));
    at = to;
  }
  zero_until(end);
}

void OrderFreeSums::reduce(const Context& context, Group& group, const Tensor& slice) {
  PERMAFROST_CHECK(phase_ == Phase::kSumming, "order_free: reduce must follow begin_step and its gradients");
  PERMAFROST_CHECK(group.size() == shards_.ranks(), "order_free: the group must have ", shards_.ranks(), " ranks; got ",
                   group.size());
  const int64_t begin = shards_.begin(group.rank());
  const int64_t end = shards_.end(group.rank());
  const TensorSpec want{Shape{end - begin}, DType::kF32};
  if (!slice.defined() || slice.spec() != want)
    fail(ErrorKind::kShapeMismatch, "order_free: slice must be ", want, "; got ", slice.spec());
  clear_unwritten();
  const bool plain = mode_ == SumMode::kPlain;
  group
      .reduce_scatter(sums_, plain ? slice : piece(begin, end), shards_.counts(), ReduceOp::kSum, context.stream,
                      plain ? "plain gradient sums" : "order-free gradient sums")
      .wait();
  if (!plain) convert(context, begin, end, slice);
  phase_ = Phase::kIdle;
}

}  // namespace permafrost
