#include "parallel/reduce/global_norm.h"

#include <cmath>

#include "core/kernels/order_free.h"

namespace permafrost {

double global_norm(const Context& context, Group& group, const ShardSpec& shards, const Tensor& slice,
                   const Tensor& blocks) {
  PERMAFROST_CHECK(shards.block() == kSquareSumBlock && shards.ranks() == group.size(),
                   "global_norm: shards must have blocks of ", kSquareSumBlock, " and ", group.size(), " ranks; got ",
                   shards.block(), " and ", shards.ranks());
  const TensorSpec want{Shape{shards.blocks()}, DType::kF64};
  if (!blocks.defined() || blocks.spec() != want)
    fail(ErrorKind::kShapeMismatch, "global_norm: blocks must be ", want, "; got ", blocks.spec());
  const int64_t first = shards.begin(group.rank()) / kSquareSumBlock;
  const Tensor own = shards.count(group.rank()) == 0
                         ? blocks.rows(0, 0)
                         : blocks.rows(first, first + shards.block_counts()[static_cast<size_t>(group.rank())]);
  block_square_sums(context, slice, own);
  group.all_gather(own, blocks, shards.block_counts(), context.stream, "block norms").wait();
  double sum = 0;
  for (int64_t b = 0; b < shards.blocks(); ++b) sum += blocks.data<double>()[b];
  return std::sqrt(sum);
}

}  // namespace permafrost
