#pragma once
#include <cstdint>

namespace permafrost::testing {

/// Heap allocations (malloc and its relatives, operator new included) between begin and end, of the whole process or of
/// threads that registered themselves.
/// Programs that use this link tests/support/count_allocations.cc, which stands in front of the C library's functions;
/// under sanitizers, which do the same, counting is not available.
struct AllocationCount {
  int64_t calls = 0;
  int64_t bytes = 0;
  int64_t largest = 0;
  int64_t library_calls = 0;  ///< within a LibraryCall; not among those above
  int64_t library_largest = 0;
};
/// While one lives, allocations of its thread are those of a library that is called.
class LibraryCall {
 public:
  LibraryCall();
  ~LibraryCall();
  LibraryCall(const LibraryCall&) = delete;
  LibraryCall& operator=(const LibraryCall&) = delete;
};
bool can_count_allocations();
enum class CountedThreads : uint8_t { kAll, kRegistered };
/// The calling thread counts from now on where only registered ones do.
void register_counted_thread();
void begin_counting_allocations(CountedThreads threads = CountedThreads::kAll);
AllocationCount end_counting_allocations();

}  // namespace permafrost::testing
