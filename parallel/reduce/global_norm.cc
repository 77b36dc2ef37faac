#include "parallel/reduce/global_norm.h"

#include "core/kernels/order_free.h"

namespace permafrost {
namespace {

/// Those of `blocks` that are of a rank's slice.
Tensor blocks_of(int rank, const ShardSpec& shards, const Tensor& blocks) {
  PERMAFROST_CHECK(shards.block() == kSquareSumBlock && rank < shards.ranks(),
                   "global_norm: shards must have blocks of ", kSquareSumBlock, " and more than ", rank, " ranks; got ",
                   shards.block(), " and ", shards.ranks());
  const TensorSpec want{Shape{shards.blocks()}, DType::kF64};
  if (!blocks.defined() || blocks.spec() != want)
    fail(ErrorKind::kShapeMismatch, "global_norm: blocks must be ", want, "; got ", blocks.spec());
  if (shards.count(rank) == 0) return blocks.rows(0, 0);
  const int64_t first = shards.begin(rank) / kSquareSumBlock;
  return blocks.rows(first, first + shards.block_counts()[static_cast<size_t>(rank)]);
}

}  // namespace

void own_norm_blocks(const Context& context, int rank, const ShardSpec& shards, const Tensor& slice,
                     const Tensor& blocks) {
  block_square_sums(context, slice, blocks_of(rank, shards, blocks));
}

void gather_norm_blocks(const Context& context, Group& group, const ShardSpec& shards, const Tensor& blocks) {
  PERMAFROST_CHECK(shards.ranks() == group.size(), "global_norm: shards must be of ", group.size(), " ranks; got ",
                   shards.ranks());
  const Event gathered = group.all_gather(blocks_of(group.rank(), shards, blocks), blocks, shards.block_counts(),
                                          context.stream, "block norms");
  if (context.device.kind == DeviceKind::kCpu) gathered.wait();  // on CUDA the stream keeps the order
}

void global_norm(const Context& context, Group& group, const ShardSpec& shards, const Tensor& slice,
                 const Tensor& blocks, double clip_norm, const GradientNorm& result) {
  own_norm_blocks(context, group.rank(), shards, slice, blocks);
  gather_norm_blocks(context, group, shards, blocks);
  norm_of_blocks(context, blocks, clip_norm, result.norm, result.clip, result.apply);
}

}  // namespace permafrost
