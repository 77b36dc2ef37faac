#pragma once
#include <cstdint>

namespace permafrost {

/// Sees the threads of a loader at work, to time them. Called on those threads, side by side; must not throw, allocate
/// or wait.
class LoaderObserver {
 public:
  virtual ~LoaderObserver() = default;
  /// Around reading and preparing one sample on thread `thread` (from 0), of a micro-batch by its number through the
  /// training, kIdleMicroBatch for padding alone.
  virtual void begin_sample(int thread, int64_t micro_batch) = 0;
  virtual void end_sample(int thread) = 0;
};

}  // namespace permafrost
