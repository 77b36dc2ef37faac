#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "launch/trace/marked_work.h"
#include "launch/trace/step_description.h"
#include "launch/training/phase_observer.h"
#include "launch/training/trainer.h"
#include "parallel/plan/plan.h"
#include "parallel/run/executor_observer.h"

namespace permafrost {

/// One operation of a plan, in one direction; or all of one kind and shape together.
struct ProfiledOp : StepDescription {
  double calls = 0;       ///< per step
  double seconds = 0;     ///< per step: median over steps
  double mean = 0;        ///< the same: mean
  double outside_us = 0;  ///< per call, mean: not within ThreadPool::run; 0 on a device
};

/// What the executor costs beside kernels, in microseconds per call of an operation.
struct ExecutorOverhead {
  std::vector<double> between;  ///< from the end of one call to the begin of the next, without waiting for weights
  std::vector<double> within;   ///< of a call, what is not within ThreadPool::run; empty on a device
  std::vector<double> whole;    ///< a call, kernels included
  std::vector<double> sum() const;
};

using NamedMilliseconds = std::vector<std::pair<std::string, double>>;

/// Times every operation of some training steps of one rank: on CPU on the computing thread, by the host's clock; on a
/// device between two marks of the queue that programs run on, by the device's clock, operation by operation (no
/// graphs). Takes its memory and marks when it is made, and none in a step. On a device it must see phases, too.
class StepProfile final : public ExecutorObserver, public PhaseObserver {
 public:
  /// For `steps` training steps of this plan on `rank`. On CPU (`queue` null) times `pool` until the profile dies. All
  /// must outlive it.
  StepProfile(const Plan& plan, ThreadPool& pool, int rank, int64_t steps, cuda::Queue* queue = nullptr);
  ~StepProfile() override;
  StepProfile(const StepProfile&) = delete;
  StepProfile& operator=(const StepProfile&) = delete;

  void begin_training_step();
  /// Errors: kInternal for what a device said of its marks.
  void end_training_step(double seconds, const StepAccount& account);

  void begin_program(size_t bucket) override;
  void begin_gather(size_t step) override;
  void begin_step(size_t step) override;
  void end_step(size_t step) override;
  void begin_phase(TrainerPhase phase, int64_t number) override;
  void end_phase(TrainerPhase phase) override;

  /// Every operation that ran, in the order of the programs.
  std::vector<ProfiledOp> operations() const;
  /// Those of one kind, direction and shape together, the most expensive first; name and unit are empty.
  std::vector<ProfiledOp> groups() const;
  const ExecutorOverhead& overhead() const { return overhead_; }
  /// Milliseconds per step by what they were spent on, median over steps; "other" is what nothing here covers: on a
  /// device what is not in StepAccount::device_ms, which all others together are.
  NamedMilliseconds parts() const;
  /// Median over steps of StepAccount::device_ms.
  double device_ms() const;
  /// What the host was at meanwhile, where parts are a device's: giving work, and waiting for it. Median over steps.
  NamedMilliseconds host_parts() const;
  double median_step_seconds() const;

  std::string table() const;
  OrderedJson json() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Times {
    int64_t nanoseconds = 0, pool_nanoseconds = 0, calls = 0;
  };
  /// Pieces of work: op and whether it waited for weights; phase.
  struct OnDevice {
    std::array<MarkedWork, 2> programs;  // the one that is given, and the one before, whose times are read meanwhile
    MarkedWork phases;
    size_t current = 0;  // of programs
  };
  size_t at(size_t bucket, size_t step) const { return first_of_bucket_[bucket] + step; }
  void take_program(MarkedWork& program);
  void take_device_times();
  /// By training step.
  std::vector<double> operations_ms() const;
  NamedMilliseconds parts_on_device() const;
  using NamedValue = std::pair<std::string, std::function<double(size_t training_step)>>;
  NamedMilliseconds medians_of(const std::vector<NamedValue>& values) const;
  ProfiledOp describe(size_t bucket, size_t step) const;
  ProfiledOp summarise(const std::vector<size_t>& ops, ProfiledOp like) const;

  const Plan& plan_;
  ThreadPool& pool_;
  std::unique_ptr<OnDevice> device_;  // null on CPU
  std::vector<size_t> first_of_bucket_;
  size_t ops_ = 0;
  std::vector<Times> times_;  // [training step][op]
  size_t training_step_ = 0, most_steps_ = 0;

  // Of the program that runs.
  size_t bucket_ = 0;
  int64_t pool_nanoseconds_ = 0, pool_before_ = 0, gap_nanoseconds_ = 0;
  Clock::time_point begin_, end_;
  bool waited_ = false;
  int64_t gather_nanoseconds_ = 0, gaps_nanoseconds_ = 0;  // of this training step

  ExecutorOverhead overhead_;
  std::vector<StepAccount> accounts_;
  std::vector<double> step_seconds_, gather_ms_, gap_ms_;
  std::array<int64_t, kPhaseKinds> phase_nanoseconds_{};          // of this training step, on a device
  std::vector<std::array<double, kPhaseKinds>> device_phase_ms_;  // per training step
};

}  // namespace permafrost
