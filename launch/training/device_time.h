#pragma once
#include <vector>

#include "core/device/cuda.h"

namespace permafrost {

/// How long a GPU was busy, by its own clock: stretches of work from where one begins to where it ends in a queue, what
/// is between two kernels included, and waits of these kernels for other ranks too. Nothing without a queue.
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
