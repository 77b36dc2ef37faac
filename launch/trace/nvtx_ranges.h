#pragma once
#include <array>
#include <string>
#include <vector>

#include "core/device/cuda.h"
#include "launch/training/phase_observer.h"
#include "parallel/plan/plan.h"
#include "parallel/run/executor_observer.h"

namespace permafrost {

/// Where ranges go: NVTX, or what a test looks at.
struct RangeCalls {
  void (*push)(const char*) noexcept = cuda::push_range;
  void (*pop)() noexcept = cuda::pop_range;
};

/// Names what happens for NVIDIA's tools: phases of the trainer, programs, their steps and fills of slots, called as in
/// a trace. Names are made here, and nothing in a step.
class NvtxRanges final : public ExecutorObserver, public PhaseObserver {
 public:
  /// The plan need not outlive it.
  explicit NvtxRanges(const Plan& plan, const RangeCalls& calls = {});

  void begin_program(size_t bucket) override;
  void begin_gather(size_t step) override;
  void end_gather(size_t step) override;
  void begin_step(size_t step) override;
  void end_step(size_t step) override;
  void begin_fill(size_t unit) override;
  void end_fill(size_t unit) override;
  /// Of what is replayed as a graph there are ranges of phases and of waiting for gathers alone.
  bool needs_steps() const override { return false; }
  void begin_phase(TrainerPhase phase, int64_t number) override;
  void end_phase(TrainerPhase phase) override;

 private:
  void push(const char* name);
  void pop_to(int depth);

  RangeCalls calls_;
  std::vector<std::vector<std::string>> steps_;  // [bucket][step]
  std::vector<std::string> fills_;               // per unit
  int depth_ = 0, program_depth_ = 0;            // of the thread that computes: something thrown leaves ranges open
  size_t bucket_ = 0;
};

}  // namespace permafrost
