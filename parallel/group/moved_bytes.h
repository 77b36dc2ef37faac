#pragma once
#include <atomic>
#include <cstdint>

namespace permafrost {

/// Bytes of payload that one rank read from other ranks, in all calls of the groups that share this counter: a backend
/// made with it, and every group split from that. Waiting, and what a rank reads of its own, count nothing. Per call,
/// with N ranks and `own` = bytes of this rank's part:
///   all_gather      all - own
///   reduce_scatter  (N - 1) own
///   all_reduce      (N - 1) all up to kSmallAllReduceBytes, else (N - 1) own + all - own; own of element i..j is
///                   elements * rank / N to elements * (rank + 1) / N. Threads of one process always do the latter,
///                   and of NCCL, whose ways are its own, the latter is counted.
///   broadcast       all, except the root
///   recv            all
/// Callable from any thread; outlives the groups.
class MovedBytes {
 public:
  void add(int64_t bytes) { total_.fetch_add(bytes, std::memory_order_relaxed); }
  int64_t total() const { return total_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> total_ = 0;
};

/// Up to this many bytes every rank of an all_reduce reads everything of every other: one exchange instead of two.
inline constexpr int64_t kSmallAllReduceBytes = int64_t{16} << 10;

}  // namespace permafrost
