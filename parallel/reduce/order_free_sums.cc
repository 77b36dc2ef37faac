#include "parallel/reduce/order_free_sums.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/narrow.h"
#include "core/device/bytes.h"

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

OrderFreeSums::OrderFreeSums(TrainableLayout layout, const ShardSpec& shards, int rank, int64_t micro_batches,
                             SumMode mode, const Tensor& sums)
    : layout_(std::move(layout)),
      shards_(shards),
      rank_(rank),
      micro_batches_(micro_batches),
      mode_(mode),
      sums_(sums),
      added_(layout_.params.size()),
      exponents_(layout_.params.size()) {
  check_layout(layout_);
  PERMAFROST_CHECK(shards_.elements() == layout_.elements, "order_free: shards must divide the ", layout_.elements,
                   " elements of the layout; got ", shards_.elements());
  PERMAFROST_CHECK(rank_ >= 0 && rank_ < shards_.ranks(), "order_free: rank must be in 0..", shards_.ranks() - 1,
                   "; got ", rank_);
  PERMAFROST_CHECK(micro_batches_ >= 1, "order_free: micro-batches must be >= 1; got ", micro_batches_);
  const TensorSpec want{Shape{layout_.elements}, mode_ == SumMode::kPlain ? DType::kF32 : DType::kI64};
  if (!sums_.defined() || sums_.spec() != want)
    fail(ErrorKind::kShapeMismatch, "order_free: sums must be ", want, "; got ", sums_.spec());
  const int64_t params = std::ssize(layout_.params), word = size_of(DType::kI32);
  const int64_t rows = div_up(micro_batches_, shards_.ranks());
  scales_ = Buffer::pinned("scales of gradients", 2 * word * params, sums_.device());
  if (on_cuda()) device_scales_ = Buffer("scales of gradients", 2 * word * params, sums_.device());
  ranges_ = Buffer("ranges of gradients", word * params, sums_.device());
  seen_ranges_ = Buffer::pinned("ranges of gradients seen", word * params * rows, sums_.device());
  seen_.reserve(static_cast<size_t>(rows));
  make_pieces(rank);
}

void OrderFreeSums::make_pieces(int rank) {
  const int64_t begin = shards_.begin(rank), end = shards_.end(rank);
  std::vector<FlatPiece> pieces;
  for (size_t p = 0; p < layout_.params.size(); ++p) {
    const TrainableParam& param = layout_.params[p];
    append_pieces(pieces,
                  {.begin = std::max(begin, param.offset) - begin,
                   .elements = std::min(end, param.offset + param.elements) - std::max(begin, param.offset),
                   .row = static_cast<int64_t>(p)},
                  sums_.device());
  }
  pieces_ = PieceTable(pieces, sums_.device());
}

void OrderFreeSums::check(const Context& context) const {
  PERMAFROST_CHECK(context.device == sums_.device(), "order_free: context must be of the device of the sums");
}

void OrderFreeSums::begin(const Context& context, Phase phase) {
  check(context);
  phase_ = phase;
  std::ranges::fill(added_, 0);
  ended_ = 0;
  seen_.clear();
  fill_bytes(context, ranges_.data(), 0, ranges_.bytes());
  std::ranges::fill(exponents_, kZeroExponent);
  overflow_ = false;
  bad_ = {};
  // On CUDA every gradient is added, the first one too: then all micro-batches give the same kernels to the stream.
  if (on_cuda() && phase == Phase::kSumming) fill_bytes(context, sums_.raw(), 0, sums_.bytes());
}

void OrderFreeSums::set_scales(const Context& context, std::span<const int32_t> limits) {
  PERMAFROST_CHECK(limits.size() == layout_.params.size(), "order_free: limits must be one per parameter (",
                   layout_.params.size(), "); got ", limits.size());
  auto* scales = reinterpret_cast<OrderFreeScale*>(scales_.data());
  for (size_t i = 0; i < limits.size(); ++i) scales[i] = OrderFreeScale::make(limits[i], micro_batches_);
  if (on_cuda()) copy_bytes(context, device_scales_.data(), scales_.data(), scales_.bytes());
}

void OrderFreeSums::begin_step(const Context& context, std::span<const int32_t> limits) {
  set_scales(context, limits);
  begin(context, Phase::kSumming);
}

void OrderFreeSums::begin_measuring(const Context& context, bool keep) {
  PERMAFROST_CHECK(!keep || !on_cuda(), "order_free: gradients are kept on CPU alone; got sums on CUDA");
  begin(context, keep ? Phase::kKeeping : Phase::kMeasuring);
}

Tensor OrderFreeSums::piece(int64_t begin, int64_t end) const { return sums_.rows(begin, end); }

Tensor OrderFreeSums::scales_on_device() const {
  return {on_cuda() ? device_scales_.data() : scales_.data(), DType::kI32, Shape{std::ssize(layout_.params), 2},
          sums_.device()};
}

Tensor OrderFreeSums::scale_of(size_t param) const {
  const auto p = static_cast<int64_t>(param);
  return scales_on_device().rows(p, p + 1).reshaped(Shape{2});
}

Tensor OrderFreeSums::range_of(size_t param) const {
  return {ranges_.data() + param * sizeof(int32_t), DType::kI32, Shape{1}, sums_.device()};
}

/// The second half of the memory of its sums, so that these can be written from the front.
Tensor OrderFreeSums::place_to_keep(const TrainableParam& param) const {
  const Tensor target = piece(param.offset, param.offset + param.elements);
  const int64_t bytes = param.elements * size_of(DType::kF32);
  return {static_cast<std::byte*>(target.raw()) + target.bytes() - bytes, DType::kF32, Shape{param.elements}};
}

void OrderFreeSums::sum_kept(const Context& context, std::span<const int32_t> limits) {
  PERMAFROST_CHECK(phase_ == Phase::kKeeping,
                   "order_free: sum_kept must follow begin_measuring(true) and its gradients");
  set_scales(context, limits);
  const auto* scales = reinterpret_cast<const OrderFreeScale*>(scales_.data());
  constexpr int64_t kBlock = 16384;
  std::array<float, kBlock> block;
  for (size_t p = 0; p < layout_.params.size(); ++p) {
    const TrainableParam& place = layout_.params[p];
    PERMAFROST_CHECK(exponents_[p] <= scales[p].exponent, "order_free: kept gradients must be below 2^",
                     scales[p].exponent, "; got one of exponent ", exponents_[p], " [param=", place.name, "]");
    if (added_[p] == 0 || mode_ == SumMode::kPlain) continue;
    const float* kept = place_to_keep(place).data<float>();
    for (int64_t i = 0; i < place.elements; i += kBlock) {
      const int64_t n = std::min(kBlock, place.elements - i);
      std::copy_n(kept + i, n, block.data());  // the sums may reach into what was kept of them
      order_free_add(context, scale_of(p), {block.data(), DType::kF32, Shape{n}},
                     piece(place.offset + i, place.offset + i + n), GradMode::kOverwrite, range_of(p));
    }
  }
  phase_ = Phase::kSumming;
}

void OrderFreeSums::accumulate(const Context& context, int param, const Tensor& gradient) {
  PERMAFROST_CHECK(phase_ != Phase::kIdle && phase_ != Phase::kExchanged,
                   "order_free: begin_step or begin_measuring must come before accumulate");
  PERMAFROST_CHECK(param >= 0 && param < std::ssize(layout_.params), "order_free: parameter must be in 0..",
                   std::ssize(layout_.params) - 1, "; got ", param);
  const auto p = static_cast<size_t>(param);
  const TrainableParam& place = layout_.params[p];
  if (gradient.elements() != place.elements)
    fail(ErrorKind::kShapeMismatch, "order_free: gradient must have ", place.elements, " elements; got ",
         gradient.shape(), " [param=", place.name, "]");
  // On CUDA calls say little: a launch of what was captured adds without one, and a capture given up adds nothing.
  PERMAFROST_CHECK((on_cuda() ? ended_ : added_[p]) < micro_batches_, "order_free: at most ", micro_batches_,
                   " gradients per step have room; got one more [param=", place.name, "]");
  PERMAFROST_CHECK(phase_ != Phase::kKeeping || added_[p] == 0,
                   "order_free: one gradient of a parameter can be kept; got one more [param=", place.name, "]");
  add(context, p, gradient);
  if (!on_cuda()) ++added_[p];
}

void OrderFreeSums::add(const Context& context, size_t param, const Tensor& gradient) {
  const TrainableParam& place = layout_.params[param];
  const Tensor range = range_of(param);
  if (phase_ == Phase::kMeasuring) return gradient_range(context, gradient, range);
  const Tensor target = piece(place.offset, place.offset + place.elements);
  const GradMode mode = added_[param] == 0 && !on_cuda() ? GradMode::kOverwrite : GradMode::kAdd;
  if (mode_ == SumMode::kPlain) return plain_add(context, gradient, target, mode, range);
  if (phase_ == Phase::kSumming) return order_free_add(context, scale_of(param), gradient, target, mode, range);
  plain_add(context, gradient, place_to_keep(place), GradMode::kOverwrite, range);  // a copy
}

void OrderFreeSums::end_micro_batch(const Context& context, int64_t micro_batch) {
  check(context);
  PERMAFROST_CHECK(ended_ < micro_batches_, "order_free: at most ", micro_batches_,
                   " micro-batches per step have room; got one more");
  ++ended_;
  if (seen_.size() == seen_.capacity()) settle(context);
  copy_bytes(context, seen_ranges_.data() + std::ssize(seen_) * ranges_.bytes(), ranges_.data(), ranges_.bytes());
  fill_bytes(context, ranges_.data(), 0, ranges_.bytes());
  seen_.push_back(micro_batch);
}

void OrderFreeSums::settle(const Context& context) {
  check(context);
  finish(context);
  const auto* ranges = reinterpret_cast<const int32_t*>(seen_ranges_.data());
  const size_t params = layout_.params.size();
  for (size_t row = 0; row < seen_.size(); ++row) look({ranges + row * params, params}, seen_[row]);
  seen_.clear();
}

void OrderFreeSums::look(std::span<const int32_t> ranges, int64_t micro_batch) {
  const auto* scales = reinterpret_cast<const OrderFreeScale*>(scales_.data());
  for (size_t p = 0; p < ranges.size(); ++p) {
    const GradientRange range{ranges[p]};
    exponents_[p] = std::max(exponents_[p], range.exponent());
    const int param = static_cast<int>(p);
    if (!range.finite()) {
      // The lowest micro-batch wins, then the lowest parameter: the same finding for any order.
      if (!bad_.found() || micro_batch < bad_.micro_batch || (micro_batch == bad_.micro_batch && param < bad_.param))
        bad_ = {param, micro_batch};
    } else if (phase_ == Phase::kSumming && mode_ == SumMode::kOrderFree && range.largest_bits != 0) {
      overflow_ = overflow_ || range.exponent() > scales[p].exponent;
    }
  }
}

void OrderFreeSums::clear_unwritten(const Context& context) {
  if (on_cuda()) return;  // cleared before the step
  for (size_t p = 0; p < layout_.params.size(); ++p) {
    const TrainableParam& place = layout_.params[p];
    if (added_[p] > 0 || place.elements == 0) continue;
    const Tensor target = piece(place.offset, place.offset + place.elements);
    fill_bytes(context, target.raw(), 0, target.bytes());
  }
}

void OrderFreeSums::check_slice(const Tensor& slice) const {
  const TensorSpec want{Shape{shards_.count(rank_)}, DType::kF32};
  if (!slice.defined() || slice.spec() != want)
    fail(ErrorKind::kShapeMismatch, "order_free: slice must be ", want, "; got ", slice.spec());
}

void OrderFreeSums::reduce(const Context& context, Group& group, const Tensor& slice) {
  exchange(context, group, slice);
  convert(context, slice);
}

void OrderFreeSums::exchange(const Context& context, Group& group, const Tensor& slice) {
  PERMAFROST_CHECK(phase_ == Phase::kSumming, "order_free: reduce must follow begin_step and its gradients");
  PERMAFROST_CHECK(group.size() == shards_.ranks() && group.rank() == rank_, "order_free: the group must have ",
                   shards_.ranks(), " ranks and this one be ", rank_, "; got ", group.size(), " and ", group.rank());
  check_slice(slice);
  clear_unwritten(context);
  const bool plain = mode_ == SumMode::kPlain;
  const Event summed = group.reduce_scatter(sums_, plain ? slice : own_sums(), shards_.counts(), ReduceOp::kSum,
                                            context.stream, plain ? "plain gradient sums" : "order-free gradient sums");
  if (!on_cuda()) summed.wait();  // on CUDA the stream keeps the order
  phase_ = Phase::kExchanged;
}

void OrderFreeSums::convert(const Context& context, const Tensor& slice) const {
  PERMAFROST_CHECK(phase_ == Phase::kExchanged, "order_free: convert must follow exchange");
  check_slice(slice);
  if (mode_ == SumMode::kOrderFree) order_free_values(context, pieces_.view(), scales_on_device(), own_sums(), slice);
}

}  // namespace permafrost
