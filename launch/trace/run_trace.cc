#include "launch/trace/run_trace.h"

#include <glog/logging.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <span>

#include "core/base/check.h"
#include "data/factory.h"
#include "launch/training/agreement.h"

namespace permafrost {

namespace {

/// Of the running kernel: processes with the same one share a clock. Zeros where the kernel does not tell.
std::array<char, 40> boot_id() {
  std::array<char, 40> id{};
  std::ifstream("/proc/sys/kernel/random/boot_id").read(id.data(), id.size() - 1);
  return id;
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

std::string device_name(const Runtime& runtime) { return concat("cuda:", runtime.device().index); }

PlanTraceOptions plan_trace_options(const TraceOptions& options, const config::Config& config, const Runtime& runtime,
                                    TraceSteps steps) {
  PlanTraceOptions made;
  made.rank = runtime.rank();
  made.steps = steps;
  made.loader_threads = decode_threads(config, runtime.pool.threads());
  made.prefetch = config.data().prefetch();
  made.micro_batch = config.train().micro_batch();
  made.most_spans = options.most_spans;
  if (!runtime.stream) return made;
  made.queue = runtime.stream->queue();
  made.device = device_name(runtime);
  return made;
}

}  // namespace

void check_trace_options(const TraceOptions& options, int64_t end_step) {
  if (options.file.empty() || options.steps.empty()) return;
  if (parse_trace_steps(options.who, options.steps).begin >= end_step)
    fail(ErrorKind::kConfig, options.who, ": --trace-steps must begin before step ", end_step,
         ", where the run ends; got ", options.steps);
}

RunTrace::RunTrace(const TraceOptions& options, const config::Config& config, const Plan& plan, Runtime& runtime,
                   int64_t first_step, int64_t end_step)
    : plan_(plan), runtime_(runtime), file_(options.file) {
  require_same_options(options);
  if (runtime.stream) {
    ranges_ = std::make_unique<NvtxRanges>(plan);
    observers_.add(static_cast<ExecutorObserver*>(&*ranges_));
    observers_.add(static_cast<PhaseObserver*>(&*ranges_));
  }
  if (file_.empty()) return;
  check_trace_options(options, end_step);
  steps_ =
      options.steps.empty() ? usual_trace_steps(first_step, end_step) : parse_trace_steps(options.who, options.steps);
  if (steps_.end <= first_step && first_step < end_step)
    fail(ErrorKind::kConfig, options.who, ": --trace-steps must have a step of this run, which goes on from step ",
         first_step, "; got ", options.steps);
  steps_ = {std::max(steps_.begin, first_step), std::min(steps_.end, end_step)};
  steps_.end = std::max(steps_.begin, steps_.end);  // of a run that has nothing left to do
  if (runtime.first()) require_writable_trace(options.who, file_);
  trace_ = std::make_unique<PlanTrace>(plan, plan_trace_options(options, config, runtime, steps_));
  observers_.add(static_cast<ExecutorObserver*>(&*trace_));
  observers_.add(static_cast<PhaseObserver*>(&*trace_));
  agree_on_origin();
}

/// Writing the file is collective. Names of files may differ: rank 0's counts.
void RunTrace::require_same_options(const TraceOptions& options) const {
  require_agreement(runtime_.world, options.who,
                    {{"--trace", options.file.empty() ? "none" : "a file"}, {"--trace-steps", options.steps}},
                    ErrorKind::kConfig);
}

void RunTrace::agree_on_origin() {
  struct {
    int64_t time = 0;
    std::array<char, 40> machine = boot_id();
  } first;
  const std::array<char, 40> here = first.machine;
  runtime_.world.barrier(StreamView::caller(), "origin of the trace").wait();
  const int64_t now = first.time = trace_clock();
  runtime_.world
      .broadcast(Tensor(&first, DType::kU8, Shape{sizeof first}), 0, StreamView::caller(), "origin of the trace")
      .wait();
  shared_clock_ = first.machine == here && here[0] != 0;
  origin_ = shared_clock_ || runtime_.first() ? first.time : now;
  shared_clock_ = shared_clock_ || runtime_.first();
}

void RunTrace::show(Trainer& trainer) {
  trainer.observe(observers_.sees_programs() ? &observers_ : nullptr);
  trainer.observe(observers_.sees_phases() ? &observers_ : nullptr, trace_.get());
}

void RunTrace::attach(Trainer& trainer) { show(trainer); }

void RunTrace::add(Trainer& trainer, ExecutorObserver& programs, PhaseObserver& phases) {
  observers_.add(&programs);
  observers_.add(&phases);
  show(trainer);
}

void RunTrace::remove(Trainer& trainer, ExecutorObserver& programs, PhaseObserver& phases) {
  observers_.remove(&programs);
  observers_.remove(&phases);
  show(trainer);
}

OrderedJson RunTrace::about() const {
  return {{"program", "permafrost"},    {"plan_hash", plan_.hash()}, {"ranks", runtime_.size()},
          {"first_step", steps_.begin}, {"end_step", steps_.end},    {"bytes_and_flops", "as the plan counts them"}};
}

/// What keeps spans from being all that there was.
std::vector<std::string> RunTrace::problems() const {
  std::vector<std::string> all;
  if (trace_->trace().full())
    all.emplace_back("memory full: what came later is missing; ask for fewer steps with --trace-steps");
  if (const std::string failure = trace_->device_failure(); !failure.empty())
    all.push_back("no times of the device: " + failure);
  return all;
}

TraceProcess RunTrace::process() const {
  TraceProcess process{runtime_.rank(), runtime_.size(), origin_, {}, problems()};
  process.name = concat("rank ", runtime_.rank(), " of ", runtime_.size(), " on ", host_name());
  process.labels.emplace_back(shared_clock_
                                  ? "clock of rank 0's machine"
                                  : "clock of another machine, set at a barrier: off by as much as that took");
  return process;
}

std::optional<std::string> RunTrace::before_step(int64_t step) { return step >= steps_.end ? finish() : std::nullopt; }

std::optional<std::string> RunTrace::finish() {
  if (!trace_ || written_) return std::nullopt;
  written_ = true;
  trace_->stop();
  for (const std::string& problem : problems())
    LOG(WARNING) << "trace: " << problem << " [rank " << runtime_.rank() << "/" << runtime_.size() << "]";
  try {
    write_trace_file(file_, trace_->trace(), process(), about(), runtime_.world);
  } catch (const Error& error) {
    if (!runtime_.first() || error.kind() != ErrorKind::kStorage) throw;
    LOG(WARNING) << "trace: not written: " << error.what();
    return std::nullopt;
  }
  if (!runtime_.first()) return std::nullopt;
  return concat("trace of steps ", steps_.begin, ":", steps_.end, " written to ", file_,
                ", to be opened with https://ui.perfetto.dev");
}

void RunTrace::keep_when_failing(const std::function<void()>& body) {
  try {
    body();
  } catch (...) {
    keep_own();
    throw;
  }
}

void RunTrace::keep_own() noexcept {
  if (!trace_ || written_) return;
  written_ = true;
  try {
    trace_->stop();
    if (trace_->trace().spans() == 0) return;
    const std::string path = own_trace_path(file_, runtime_.rank(), runtime_.size());
    write_own_trace_file(path, trace_->trace(), process(), about());
    LOG(WARNING) << "trace: what this rank recorded before the failure is in " << path;
  } catch (const std::exception& error) {
    LOG(WARNING) << "trace: not written: " << error.what();
  }
}

}  // namespace permafrost
