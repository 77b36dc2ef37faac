#pragma once
#include <cstddef>
#include <cstdint>

namespace permafrost {

/// Bytes [begin, end) of the frozen space of a plan, in which ParamPlan::placement.offset counts, and where they stand
/// here: `data` is the address of byte `begin`, perhaps in memory that the ranks of a node share.
struct FrozenRange {
  int64_t begin = 0, end = 0;
  std::byte* data = nullptr;
};

}  // namespace permafrost
