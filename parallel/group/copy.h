#pragma once
#include <cstddef>
#include <cstdint>

namespace permafrost {

/// target[0, bytes) = source[0, bytes), not overlapping. Large pieces go past the caches: what is gathered is larger
/// than they are, and a store that does not first fetch the line it overwrites saves a third of the memory traffic (1.5
/// to 2 times as fast for 32 MiB on two ranks).
void copy_past_caches(std::byte* target, const std::byte* source, int64_t bytes);

}  // namespace permafrost
