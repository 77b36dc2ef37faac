#pragma once
#include <cstddef>
#include <cstdint>

namespace permafrost {

/// Bytes [begin, end) of the frozen space, and where byte `begin` stands in this rank's memory.
struct FrozenRange {
  int64_t begin = 0, end = 0;
  std::byte* data = nullptr;
};

}  // namespace permafrost
