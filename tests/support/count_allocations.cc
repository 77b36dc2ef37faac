#include "tests/support/count_allocations.h"

#include <atomic>
#include <cerrno>
#include <cstddef>

namespace permafrost::testing {
namespace {
std::atomic<bool> counting{false}, registered_only{false};
thread_local bool registered = false;  // of the program itself, so reading it allocates nothing
thread_local int library_depth = 0;
std::atomic<int64_t> calls{0}, bytes{0}, largest{0}, library_calls{0}, library_largest{0};

[[maybe_unused]] void raise_to(std::atomic<int64_t>& most, int64_t n) {
  int64_t seen = most.load();
  while (seen < n && !most.compare_exchange_weak(seen, n)) {
  }
}
}  // namespace

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
bool can_count_allocations() { return false; }
#else
bool can_count_allocations() { return true; }

void note_allocation(size_t size) {
  if (!counting.load(std::memory_order_relaxed)) return;
  if (registered_only.load(std::memory_order_relaxed) && !registered) return;
  const auto n = static_cast<int64_t>(size);
  if (library_depth > 0) {
    ++library_calls;
    raise_to(library_largest, n);
    return;
  }
  ++calls;
  bytes += n;
  raise_to(largest, n);
}
#endif

void register_counted_thread() { registered = true; }

LibraryCall::LibraryCall() { ++library_depth; }
LibraryCall::~LibraryCall() { --library_depth; }

void begin_counting_allocations(CountedThreads threads) {
  calls = bytes = largest = library_calls = library_largest = 0;
  registered_only = threads == CountedThreads::kRegistered;
  counting = true;
}

AllocationCount end_counting_allocations() {
  counting = false;
  return {calls, bytes, largest, library_calls, library_largest};
}

}  // namespace permafrost::testing

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t size) {
  permafrost::testing::note_allocation(size);
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  permafrost::testing::note_allocation(count * size);
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  permafrost::testing::note_allocation(size);
  return __libc_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  permafrost::testing::note_allocation(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, size_t alignment, size_t size) {
  permafrost::testing::note_allocation(size);
  *out = __libc_memalign(alignment, size);
  return *out ? 0 : ENOMEM;
}
}
#endif
