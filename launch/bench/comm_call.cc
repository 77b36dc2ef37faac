#include "launch/bench/comm_call.h"

#include <cstring>

#include "core/base/narrow.h"

namespace permafrost::bench {

namespace {

constexpr int32_t kValueExponent = 6;  // |value| < 2^6

/// Differs from rank to rank, and between places that a wrong offset could exchange.
int64_t value_at(int64_t rank, int64_t index) {
  return ((index + 5 * (index >> 6) + 3 * (index >> 14) + 7 * (index >> 20) + 11 * rank) & 63) - 32;
}

int64_t sum_at(int64_t ranks, int64_t index) {
  int64_t sum = 0;
  for (int64_t r = 0; r < ranks; ++r) sum += value_at(r, index);
  return sum;
}

Tensor flat_tensor(void* data, DType dtype, int64_t elements) { return {data, dtype, Shape({elements})}; }

template <typename Want>
int64_t count_wrong(const Tensor& got, Want want) {
  const float* values = got.data<float>();
  int64_t wrong = 0;
  for (int64_t i = 0; i < got.elements(); ++i) wrong += !(values[i] == static_cast<float>(want(i)));
  return wrong;
}

}  // namespace

CommCall::CommCall(const CommCase& row, Group& group, const CommMemory& memory, bool sums_in_place)
    : row_(row),
      group_(group),
      moves_(row.op == CommOp::kAllGather),
      own_(row.count(group.rank())),
      scale_(OrderFreeScale::make(kValueExponent, row.ranks())) {
  const bool order_free = row.op == CommOp::kOrderFree;
  const DType dtype = order_free ? DType::kI64 : DType::kF32;
  const bool whole = moves_ || row.op == CommOp::kAllReduce;
  input_ = flat_tensor(memory.input, dtype, moves_ ? own_ : row.elements);
  output_ = flat_tensor(memory.output, dtype, whole ? row.elements : own_);
  if (!order_free) return;
  slice_ = flat_tensor(memory.slice, DType::kF32, own_);
  const int64_t begin = row.begin(group.rank());
  if (sums_in_place) output_ = input_.rows(begin, begin + own_);
}

void CommCall::fill() const {
  constexpr int kNan = 0xff;  // in every byte of an f32
  const int rank = group_.rank();
  if (slice_.defined())
    std::memset(slice_.raw(), kNan, narrow<size_t>(slice_.bytes()));
  else
    std::memset(output_.raw(), kNan, narrow<size_t>(output_.bytes()));
  const int64_t first = moves_ ? row_.begin(rank) : 0;
  const int64_t one = int64_t{1} << scale_.shift;
  for (int64_t i = 0; i < input_.elements(); ++i) {
    const int64_t value = value_at(rank, first + i);
    if (slice_.defined())
      input_.data<int64_t>()[i] = value * one;
    else
      input_.data<float>()[i] = static_cast<float>(value);
  }
}

void CommCall::run(const Context& context) const {
  const std::span<const int64_t> counts = row_.given_counts();
  switch (row_.op) {
    case CommOp::kAllGather:
      group_.all_gather(input_, output_, counts, context.stream, "bench").wait();
      return;
    case CommOp::kReduceScatter:
      group_.reduce_scatter(input_, output_, counts, ReduceOp::kSum, context.stream, "bench").wait();
      return;
    case CommOp::kOrderFree:
      group_.reduce_scatter(input_, output_, counts, ReduceOp::kSum, context.stream, "bench").wait();
      order_free_value(context, scale_, output_, slice_);
      return;
    case CommOp::kAllReduce:
      group_.all_reduce(input_, output_, ReduceOp::kSum, context.stream, "bench").wait();
      return;
  }
}

int64_t CommCall::wrong() const {
  const int64_t ranks = row_.ranks();
  if (moves_) {
    int64_t wrong = 0;
    for (int r = 0; r < static_cast<int>(ranks); ++r) {
      const int64_t begin = row_.begin(r);
      wrong +=
          count_wrong(output_.rows(begin, begin + row_.count(r)), [&](int64_t i) { return value_at(r, begin + i); });
    }
    return wrong;
  }
  const int64_t begin = row_.op == CommOp::kAllReduce ? 0 : row_.begin(group_.rank());
  return count_wrong(slice_.defined() ? slice_ : output_, [&](int64_t i) { return sum_at(ranks, begin + i); });
}

}  // namespace permafrost::bench
