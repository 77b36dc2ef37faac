#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "data/loader/loader_observer.h"
#include "launch/trace/device_lane.h"
#include "launch/trace/recorder.h"
#include "launch/trace/trace_steps.h"
#include "launch/training/phase_observer.h"
#include "parallel/plan/plan.h"
#include "parallel/run/executor_observer.h"

namespace permafrost {

struct PlanTraceOptions {
  int rank = 0;
  TraceSteps steps;
  int loader_threads = 1;
  int64_t prefetch = 0;          ///< micro-batches that loaders are ahead
  int64_t micro_batch = 1;       ///< samples
  size_t most_spans = 1 << 19;   ///< of a lane
  cuda::Queue* queue = nullptr;  ///< that programs run on; null: none
  std::string device;            ///< its name
};

/// Records the training steps asked for: everything that it sees of an executor, a trainer and a loader, by the names
/// of the plan. Takes its memory when it is made, and none in a step.
class PlanTrace final : public ExecutorObserver, public PhaseObserver, public LoaderObserver {
 public:
  /// `plan` and the queue must outlive it.
  PlanTrace(const Plan& plan, const PlanTraceOptions& options);
  const Trace& trace() const { return trace_; }
  /// Why there are no times of the device, or none any more; "" when nothing went wrong.
  std::string device_failure() const;
  /// Nothing is recorded from now on.
  void stop() { set_recording(false); }

  void begin_program(size_t bucket) override;
  void begin_gather(size_t step) override;
  void begin_step(size_t step) override;
  void end_step(size_t step) override;
  void begin_fill(size_t unit) override;
  void end_fill(size_t unit) override;
  void begin_copy(size_t unit, cuda::Queue& copying) override;
  void end_copy(size_t unit) override;
  void begin_phase(TrainerPhase phase, int64_t number) override;
  void end_phase(TrainerPhase phase) override;
  void begin_sample(int thread, int64_t micro_batch) override;
  void end_sample(int thread) override;

 private:
  void name_steps(size_t bucket);
  void name_phases(int rank);
  void make_lanes(const PlanTraceOptions& options);
  TraceLane& lane_of(TrainerPhase phase);
  void set_recording(bool on);

  const Plan& plan_;
  TraceSteps steps_;
  Trace trace_;
  TraceSwitch recording_, recording_programs_;                  // the latter not during validations
  std::vector<std::vector<uint32_t>> step_names_, wait_names_;  // [bucket][step]
  std::vector<uint32_t> program_names_;                         // per bucket
  std::vector<uint32_t> fill_names_, copy_names_;               // per unit: on the host, on a device
  std::array<uint32_t, kTrainerPhases> phase_names_{};
  uint32_t sample_name_ = 0;
  TraceLane *phases_ = nullptr, *compute_ = nullptr, *data_ = nullptr, *fills_ = nullptr;
  std::vector<TraceLane*> loader_;
  std::unique_ptr<DeviceLane> device_, copies_;

  // Of the program that runs.
  size_t bucket_ = 0;
  int64_t micro_batch_ = 0;
  bool waiting_ = false, running_ = false;
};

}  // namespace permafrost
