#include "parallel/reduce/global_norm.h"

#include "core/kernels/order_free.h"

namespace permafrost {

void global_norm(const Context& context, Group& group, const ShardSpec& shards, const Tensor& slice,
                 const Tensor& blocks, double clip_norm, const GradientNorm& result) {
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
  const Event gathered = group.all_gather(own, blocks, shards.block_counts(), context.stream, "block norms");
  if (context.device.kind == DeviceKind::kCpu) gathered.wait();  // on CUDA the stream keeps the order
  norm_of_blocks(context, blocks, clip_norm, result.norm, result.clip, result.apply);
}

}  // namespace permafrost
