#pragma once
#include <memory>

#include "core/device/context.h"
#include "core/device/stream.h"

namespace permafrost {

namespace config {
class Precision;
}

/// The stream that a rank's programs run on: a GPU to each rank of a machine, in their order; when there are fewer,
/// ranks share them and the log says so. Null for a CPU. Errors: kNotBuilt in a build without CUDA, kConfig where there
/// is no GPU that can be used, both saying why.
std::unique_ptr<Stream> open_gpu(DeviceKind device, int rank_on_machine = 0, int ranks_on_machine = 1);

/// precision.f32_products, for what is given to the context's stream from now on. Nothing on CPU, where only FP32
/// passes the configuration's checks.
void use_f32_products(const Context& context, const config::Precision& precision);
/// Bytes that are free on the device of a stream now; 0 for null.
int64_t free_device_memory(const Stream* gpu);
/// Most ranks that share a GPU when so many are on the machine; 1 without a GPU.
int ranks_on_gpu(int ranks_on_machine);

}  // namespace permafrost
