#pragma once
#include <cstdint>

#include "core/device/context.h"

namespace permafrost {

/// Copies, on CUDA between any two places that the device can reach and in the order of the context's stream: pageable
/// host memory only when nobody waits for speed.
void copy_bytes(const Context& context, void* to, const void* from, int64_t bytes);

/// Every byte set to `byte`, in the same order.
void fill_bytes(const Context& context, void* to, int byte, int64_t bytes);

/// Waits for everything given to the context's stream; on CPU there is nothing to wait for. Errors: kInvalidArgument
/// for data that a kernel refused.
void finish(const Context& context);

}  // namespace permafrost
