#pragma once
#include <cstddef>

#include "core/device/cuda.h"

namespace permafrost {

/// Sees an executor at work, to time it. Called on the computing thread, but for fills; must not throw, allocate or
/// wait. `step` is an index into the steps of the program of `bucket`.
class ExecutorObserver {
 public:
  virtual ~ExecutorObserver() = default;
  /// Before the first step of a program.
  virtual void begin_program(size_t bucket) = 0;
  /// Before the executor waits for sharded weights that `step` is the first to use; not called where there are none.
  virtual void begin_gather(size_t step) = 0;
  /// When it has them: with nothing between it and begin_step where steps are seen. Not called when waiting throws.
  virtual void end_gather(size_t /*step*/) {}
  /// Around the call of the operation, or of the sums that take a gradient.
  virtual void begin_step(size_t step) = 0;
  virtual void end_step(size_t step) = 0;
  /// Around the bringing of a sharded unit (an index into the units of the plan) into its slot, on the thread that does
  /// it: the communication thread, which is beside all other calls, or the computing thread, after begin_gather. Not
  /// ended when it throws.
  virtual void begin_fill(size_t /*unit*/) {}
  virtual void end_fill(size_t /*unit*/) {}
  /// On CUDA instead: around what brings a sharded unit into its slot as `copying` is given it, by the computing
  /// thread, before begin_program for the first ones. Not ended when it throws.
  virtual void begin_copy(size_t /*unit*/, cuda::Queue& /*copying*/) {}
  virtual void end_copy(size_t /*unit*/) {}
  /// Whether every step must be seen. A program, or what stands between its gathers, may be replayed as a whole (a
  /// graph of the device) only where not.
  virtual bool needs_steps() const { return true; }
};

}  // namespace permafrost
