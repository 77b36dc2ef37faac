#pragma once
#include <cstdint>

namespace permafrost::testing {

/// Heap allocations of the whole process (malloc and its relatives, operator new included) between begin and end.
/// Programs that use this link tests/support/count_allocations.cc, which stands in front of the C library's functions;
/// under sanitizers, which do the same, counting is not available.
struct AllocationCount {
  int64_t calls = 0;
  int64_t bytes = 0;
  int64_t largest = 0;
};
bool can_count_allocations();
void begin_counting_allocations();
AllocationCount end_counting_allocations();

}  // namespace permafrost::testing
