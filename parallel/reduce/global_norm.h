#pragma once
#include "core/device/context.h"
#include "parallel/group/group.h"
#include "parallel/shard/shard_spec.h"

namespace permafrost {

/// Euclidean norm of a sharded f32 vector, the same bits for any number of ranks: squares summed in f64 per block of
/// 4,096 elements (block_square_sums), gathered, added in the order of blocks. Collective.
/// slice: (shards.count(rank)) f32;  blocks: (shards.blocks()) f64, workspace.
/// Errors: kShapeMismatch; kInvalidArgument when the shards are not cut at such blocks.
double global_norm(const Context& context, Group& group, const ShardSpec& shards, const Tensor& slice,
                   const Tensor& blocks);

}  // namespace permafrost
