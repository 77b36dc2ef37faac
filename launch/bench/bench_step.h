#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "configs/load.h"
#include "core/base/json.h"
#include "launch/bench/step_profile.h"
#include "launch/trace/run_trace.h"
#include "launch/training/trainer.h"

namespace permafrost {

/// Some steps one after the other, of all ranks; the same on all of them. Times are those of the slowest rank of each
/// step, bytes sums over ranks.
struct StepSeries {
  int64_t first_step = 0;
  std::vector<double> seconds;
  std::vector<double> losses;
  std::vector<double> data_wait_seconds;  ///< within `seconds`
  std::vector<double> device_seconds;     ///< within `seconds`: StepAccount::device_ms; 0 on CPU
  std::vector<int64_t> samples, tokens;   ///< that counted in the loss
  std::vector<int64_t> attempts;          ///< how often the micro-batches ran
  std::vector<double> flops;  ///< of all ranks, as the plan counts those of the programs that ran, one attempt's
  std::vector<int64_t> moved_bytes, gathered_bytes, reduced_bytes;

  OrderedJson json() const;
};

/// Memory of every rank, by rank; shared pages are touched by all of them.
struct StepMemoryUse {
  std::vector<int64_t> pss_bytes, uss_bytes, peak_rss_bytes;
  int64_t pss_sum() const;
  OrderedJson json() const;
};

struct StepCheckpoint {
  int64_t bytes = 0;
  double seconds = 0;  ///< that training stands still: gathering, writing, reading back
  OrderedJson json() const { return {{"checkpoint_bytes", bytes}, {"checkpoint_seconds", seconds}}; }
};

/// Seconds from the start of the process to the end of the first step, on rank 0, in this order.
struct FirstStepSeconds {
  double launch = 0;        ///< to where ranks know each other: loading the program, the configuration, MPI
  double plan = 0;          ///< making it and agreeing on it
  double load_weights = 0;  ///< frozen ones and trainables
  double hash_frozen = 0;
  double other = 0;  ///< of the set-up: data, memory, loader, agreement
  double first_step = 0;
  double total() const { return launch + plan + load_weights + hash_frozen + other + first_step; }
  OrderedJson json() const;
};

/// One rank of what `train` would do with this configuration, without a run directory: the same trainer, plan, data,
/// optimizer and agreement, and so the same bits. All methods but those that say otherwise are collective.
class StepBench {
 public:
  /// resolved must outlive the bench. `trace` records some of the `steps` that will be taken. Errors: those of
  /// agreed_plan, RunTrace and Trainer.
  StepBench(const config::Resolved& resolved, Runtime& runtime, const TraceOptions& trace, int64_t steps);
  ~StepBench();

  /// One step after the other. Errors: those of require_steps, before any, and of Trainer::train_step. profile: sees
  /// the steps of this rank; may be null.
  StepSeries run(int64_t steps, StepProfile* profile = nullptr);
  StepMemoryUse memory();
  /// Into a folder for temporary files, where it is removed.
  StepCheckpoint checkpoint();

  /// Not collective.
  const Plan& plan() const { return plan_; }
  const Trainer& trainer() const { return *trainer_; }
  RunTrace& run_trace() { return *trace_; }
  /// Errors: kConfig for more steps than train.max_steps has left.
  void require_steps(int64_t steps) const;
  /// Not collective. Complete behind the first step.
  const FirstStepSeconds& to_first_step() const { return to_first_step_; }
  /// Not collective. What was set up: hashes, sizes, and the bytes of a step by the plan's closed forms.
  OrderedJson describe() const;

 private:
  double flops_so_far() const;

  const config::Resolved& resolved_;
  Runtime& runtime_;
  FirstStepSeconds to_first_step_;
  Plan plan_;
  std::vector<double> program_flops_;  // per bucket
  std::unique_ptr<RunTrace> trace_;    // outlives what it sees
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace permafrost
