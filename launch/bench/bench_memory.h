#pragma once
#include <functional>
#include <string>

#include "core/device/thread_pool.h"
#include "launch/bench/timing.h"

namespace permafrost::bench {

/// One kernel that should be as fast as memory: seconds per call, median; bytes it must read and write once; what a
/// copy through main memory reaches (1 GiB, beyond every cache), and a copy of as many bytes as the kernel's, which may
/// stay in the caches.
struct MemoryRow {
  std::string kernel, dtype;
  double bytes = 0, seconds = 0, memory_copy = 0, cached_copy = 0;

  double bandwidth() const { return bytes / seconds; }
  double share() const { return bandwidth() / memory_copy; }
};

/// Norm, softmax (within cross-entropy), activations, residual sum and AdamW at the sizes of ViT-B/16 with 16 images
/// and OPT-125M with 16 x 32 tokens.
void bench_memory(ThreadPool& pool, Stopwatch& watch, const std::string& only,
                  const std::function<void(const MemoryRow&)>& report);

}  // namespace permafrost::bench
