#pragma once
#include "core/device/context.h"
#include "core/kernels/attention_cpu.h"

namespace permafrost::cuda {

/// As attention_forward and attention_backward (attention.h), arguments checked and described as for the CPU, but for
/// the values of the lengths: the kernels check those. `workspace`: attention_workspace_bytes of a CUDA device.
/// The order of every sum follows from the shapes alone. Backward makes the scores twice, in a kernel that owns keys
/// (dk, dv) and one that owns queries (dq): so no two blocks add to one number, and no float goes through an atomic. Up to
/// 64 queries and keys with heads of up to 128 need one kernel: a block owns all of a head.
void attention_forward(const Context& context, const AttentionCall& call);
void attention_backward(const Context& context, const AttentionCall& call, void* workspace);

}  // namespace permafrost::cuda
