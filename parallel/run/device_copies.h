#pragma once
#include <array>
#include <exception>
#include <memory>
#include <vector>

#include "core/device/context.h"
#include "core/device/cuda.h"
#include "parallel/group/group.h"
#include "parallel/plan/plan.h"
#include "parallel/run/executor_observer.h"
#include "parallel/run/step_memory.h"

namespace permafrost {

/// Writes the inputs of programs to a device while the program before still computes: the host's inputs go over in a
/// stream of their own to a second place, and from there, within the device, to where programs read them. Nothing to do
/// on CPU.
class InputUploads {
 public:
  InputUploads(const StepMemory& memory, const Context& computing);
  /// Starts to bring over the host's inputs, for the program that is given to the computing stream next.
  void start(int64_t bytes);
  /// What that stream is given from now on finds them in place.
  void take(int64_t bytes);
  /// Until the host's inputs may be written again.
  void wait() const;

 private:
  const StepMemory& memory_;
  Context computing_;
  std::unique_ptr<Stream> copying_;
  Buffer ahead_;
  cuda::OwnedMark uploaded_, taken_;
};

/// Brings sharded units into the two slots of a device, in a stream of its own, as early as the plan allows: copied
/// from the host's memory, or gathered from the devices of all ranks. Kernels wait for them on the device.
class UnitCopies {
 public:
  /// group: of the devices, for GatherKind::kCollective; else null. counts: per unit, bytes of each rank's part; they
  /// outlive this object.
  UnitCopies(const Plan& plan, const StepMemory& memory, const Context& computing, Group* group,
             const std::vector<std::vector<int64_t>>& counts);
  /// Of copies alone; between programs.
  void observe(ExecutorObserver* observer) { observer_ = observer; }
  /// A program starts.
  void begin(const std::vector<Gather>& gathers);
  /// What the computing stream is given from now on finds the unit of this gather in its slot. Errors: what gathering
  /// it threw, now or when a slot was released.
  void acquire(size_t gather);
  /// The computing stream was given the last use of this gather.
  void release(size_t gather) noexcept;

 private:
  void start_until(int steps_done);
  void fill(const Gather& gather);

  const Plan& plan_;
  const StepMemory& memory_;
  Context computing_;
  Stream copying_;
  Group* group_;
  const std::vector<std::vector<int64_t>>& counts_;
  ExecutorObserver* observer_ = nullptr;
  std::exception_ptr error_;
  struct Slot {
    cuda::OwnedMark filled, free;
    bool used = false;  // in this program
  };
  std::array<Slot, kGatherSlots> slots_;
  cuda::OwnedMark began_;
  const std::vector<Gather>* gathers_ = nullptr;
  size_t started_ = 0;
};

}  // namespace permafrost
