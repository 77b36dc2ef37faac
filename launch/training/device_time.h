#pragma once
#include <vector>

#include "core/device/cuda.h"

namespace permafrost {

/// Stretches of work of a GPU by its own clock, each from where it begins to where it ends in a queue: gaps between its
/// kernels are included, and their waits for other ranks. Nothing without a queue.
class DeviceTime {
 public:
  /// queue: null on CPU; else outlives this.
  explicit DeviceTime(cuda::Queue* queue) : queue_(queue) {}
  void begin();
  void end();
  /// Milliseconds of all stretches since the last call. The queue has been waited for.
  double take();

 private:
  struct Stretch {
    cuda::OwnedMark begin, end;
  };
  cuda::Queue* queue_;
  std::vector<Stretch> stretches_;  // marks are kept for later steps
  size_t used_ = 0;
};

}  // namespace permafrost
