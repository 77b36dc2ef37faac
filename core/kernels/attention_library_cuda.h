#pragma once
#include "core/kernels/attention_cuda.h"

// Attention of a library (cuDNN). For attention_cuda.cu alone.
namespace permafrost::cuda {

/// Whether cuDNN computes a call on the context's device. It has no open first row and hides keys by lengths of 1 and
/// more, so a call may have kernels before it and behind it. Not for: explicit masks, f32, head sizes that are no
/// multiple of 8 or above 128, memory or strides that are no multiple of 16 bytes, one key or one query, backward with
/// a gradient that is not wanted, lengths where keys are not as many as queries, so many tokens that gradients of one
/// sample's scores take more than 1 GiB, what Queue::cudnn leaves to own kernels, devices other than compute capability
/// 9.
/// The first call of a kind makes a plan for the stream.
bool library_takes(const Context& context, const AttentionCall& call, bool backward);
void attention_forward_library(const Context& context, const AttentionCall& call, void* workspace);
void attention_backward_library(const Context& context, const AttentionCall& call, void* workspace);

}  // namespace permafrost::cuda
