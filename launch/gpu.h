#pragma once
#include <memory>

#include "core/device/context.h"
#include "core/device/stream.h"
#include "parallel/group/group.h"

namespace permafrost {

namespace config {
class Parallel;
class Precision;
}  // namespace config

/// The stream that a rank's programs run on: a GPU to each rank of a machine, in their order; when this process sees
/// fewer, they are taken in turn. Null for a CPU. Errors: kNotBuilt in a build without CUDA, kConfig where there
/// is no GPU that can be used, both saying why.
std::unique_ptr<Stream> open_gpu(DeviceKind device, int rank_on_machine = 0);

/// precision.f32_products, for what is given to the context's stream from now on. Nothing on CPU, where only FP32
/// passes the configuration's checks.
void use_f32_products(const Context& context, const config::Precision& precision);
/// parallel.attention, for what is given to the context's stream from now on; the log says who computes attention, and
/// later what cuDNN refuses. Nothing on CPU.
void use_attention(const Context& context, const config::Parallel& parallel);
/// Bytes that are free on the device of a stream now; 0 for null.
int64_t free_device_memory(const Stream* gpu);
/// How many ranks have this rank's GPU, itself included, whatever each calls it; the log says when others do. 1 without
/// a GPU. Collective.
int ranks_on_gpu(Group& world, const Stream* gpu);

}  // namespace permafrost
