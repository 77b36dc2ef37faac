#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "configs/config.pb.h"
#include "launch/runtime.h"
#include "launch/trace/nvtx_ranges.h"
#include "launch/trace/observers.h"
#include "launch/trace/plan_trace.h"
#include "launch/trace/trace_file.h"
#include "launch/training/trainer.h"

namespace permafrost {

/// What users say: --trace, --trace-steps.
struct TraceOptions {
  std::string who;    ///< the command, for messages
  std::string file;   ///< "": no trace
  std::string steps;  ///< "A:B"; "": the usual ones
  size_t most_spans = PlanTraceOptions().most_spans;
};

/// Before anything is loaded. `end_step`: the run does no step from there on. Errors: kConfig for --trace-steps that
/// are no steps, or none of such a run.
void check_trace_options(const TraceOptions& options, int64_t end_step);

/// What sees a run from beside: NVTX ranges where programs run on CUDA, and the trace that users ask for. Without
/// either nothing is set, and nothing costs.
class RunTrace {
 public:
  /// Collective. Takes all memory. The run does the steps [first_step, end_step) at most; those of the default are
  /// counted from there. `plan` and `runtime` must outlive it, and it the trainer. Errors: kConfig for --trace-steps
  /// that are no steps of the run, and where ranks were not asked for the same; kStorage, on rank 0, for a file that
  /// cannot be made.
  RunTrace(const TraceOptions& options, const config::Config& config, const Plan& plan, Runtime& runtime,
           int64_t first_step, int64_t end_step);

  void attach(Trainer& trainer);
  /// For as long as they are there, `programs` and `phases` see what their names say, too. Between steps.
  void add(Trainer& trainer, ExecutorObserver& programs, PhaseObserver& phases);
  void remove(Trainer& trainer, ExecutorObserver& programs, PhaseObserver& phases);

  /// Collective, between steps: `step` is the next one. Writes the file when the last step of it is over. Returns what
  /// rank 0 has to say about it. A file that cannot be written is a warning.
  std::optional<std::string> before_step(int64_t step);
  /// Collective: no step follows.
  std::optional<std::string> finish();
  /// body(). When it throws, what was recorded and not yet written goes to a file of this rank.
  void keep_when_failing(const std::function<void()>& body);

 private:
  void require_same_options(const TraceOptions& options) const;
  void agree_on_origin();
  OrderedJson about() const;
  TraceProcess process() const;
  std::vector<std::string> problems() const;
  void show(Trainer& trainer);
  void keep_own() noexcept;

  const Plan& plan_;
  Runtime& runtime_;
  std::string file_;
  TraceSteps steps_;
  int64_t origin_ = 0;
  bool shared_clock_ = true;
  bool written_ = false;
  std::unique_ptr<PlanTrace> trace_;
  std::unique_ptr<NvtxRanges> ranges_;
  Observers observers_;
};

}  // namespace permafrost
