#pragma once
#include "core/device/context.h"
#include "parallel/group/group.h"
#include "parallel/shard/shard_spec.h"

namespace permafrost {

/// What follows from the norm of a step's gradient, as norm_of_blocks says; beside the gradient.
struct GradientNorm {
  Tensor norm;   ///< (1) f64
  Tensor clip;   ///< (1) f32
  Tensor apply;  ///< (1) i32
};

/// The parts of global_norm, in order: this rank's blocks of `blocks`, then those of the others. The first gives a
/// stream the same work in every step, so that it can be captured, as norm_of_blocks does, which comes last.
void own_norm_blocks(const Context& context, int rank, const ShardSpec& shards, const Tensor& slice,
                     const Tensor& blocks);
void gather_norm_blocks(const Context& context, Group& group, const ShardSpec& shards, const Tensor& blocks);

/// Euclidean norm of a sharded f32 vector, the same bits for any number of ranks: squares summed in f64 per block of
/// 4,096 elements (block_square_sums), gathered, added in the order of blocks. Collective.
/// slice: (shards.count(rank)) f32;  blocks: (shards.blocks()) f64, workspace. Where `result` lies, it is written: on
/// CUDA in the order of the stream, without waiting.
/// Errors: kShapeMismatch; kInvalidArgument when the shards are not cut at such blocks.
void global_norm(const Context& context, Group& group, const ShardSpec& shards, const Tensor& slice,
                 const Tensor& blocks, double clip_norm, const GradientNorm& result);

}  // namespace permafrost
