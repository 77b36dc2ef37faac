#pragma once
#include <cstddef>

namespace permafrost {

/// Sees an executor at work, to time it. Called on the computing thread; must not throw, allocate or wait. `step` is an
/// index into the steps of the program of `bucket`.
class ExecutorObserver {
 public:
  virtual ~ExecutorObserver() = default;
  /// Before the first step of a program.
  virtual void begin_program(size_t bucket) = 0;
  /// Before the executor waits for sharded weights that `step` is the first to use; not called where there are none.
  virtual void begin_gather(size_t step) = 0;
  /// Around the call of the operation, or of the sums that take a gradient.
  virtual void begin_step(size_t step) = 0;
  virtual void end_step(size_t step) = 0;
};

}  // namespace permafrost
