#pragma once
#include <cstddef>
#include <cstdint>

namespace permafrost {

/// Whether all of it lies in one piece of nccl_memory that is still there.
bool is_nccl_memory(const std::byte* memory, int64_t bytes);

}  // namespace permafrost
