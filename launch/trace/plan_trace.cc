#include "launch/trace/plan_trace.h"

#include <algorithm>

#include "core/base/check.h"
#include "launch/trace/step_description.h"

namespace permafrost {

namespace {

OrderedJson described(const StepDescription& step) {
  OrderedJson args{{"kind", step.kind}, {"unit", step.unit}};
  if (!step.direction.empty()) args["direction"] = step.direction;
  args["shape"] = step.shape;
  args["tokens"] = step.tokens;
  args["bytes"] = step.bytes;
  args["flops"] = step.flops;
  return args;
}

std::string category_of(const StepDescription& step) { return step.direction.empty() ? "gradient" : step.direction; }

/// What a rank exchanges in a phase of a step, by the plan; -1 for phases that exchange nothing.
int64_t bytes_of(TrainerPhase phase, const TrafficPlan& traffic) {
  switch (phase) {
    case TrainerPhase::kVote:
      return traffic.vote;
    case TrainerPhase::kReduceGradients:
      return traffic.reduced_gradients;
    case TrainerPhase::kGatherNorms:
      return traffic.gathered_norms;
    case TrainerPhase::kGatherWorking:
      return traffic.gathered_working;
    default:
      return -1;
  }
}

std::string number_key_of(TrainerPhase phase) {
  switch (phase) {
    case TrainerPhase::kData:
      return "micro_batch_of_rank";
    case TrainerPhase::kInputs:
    case TrainerPhase::kProgram:
      return "micro_batch";
    case TrainerPhase::kValidation:
    case TrainerPhase::kCheckpoint:
    case TrainerPhase::kFrozenCheck:
      return "steps_done";
    default:
      return "step";
  }
}

}  // namespace

PlanTrace::PlanTrace(const Plan& plan, const PlanTraceOptions& options) : plan_(plan), steps_(options.steps) {
  for (size_t bucket = 0; bucket < plan.programs.size(); ++bucket) name_steps(bucket);
  for (size_t unit = 0; unit < plan.frozen_units.size(); ++unit) {
    const std::string& name = plan.units[unit].name;
    const OrderedJson args{{"unit", name},
                           {"bytes", plan.frozen_units[unit].bytes},
                           {"how", plan.gather.kind == GatherKind::kCopy ? "copy" : "collective"}};
    fill_names_.push_back(trace_.name({"gather " + name, "gather", args, ""}));
    copy_names_.push_back(trace_.name({"gather " + name, "gather", args, "micro_batch"}));
  }
  name_phases(options.rank);
  sample_name_ = trace_.name({"prepare sample", "data", nullptr, "micro_batch"});
  make_lanes(options);
}

void PlanTrace::name_steps(size_t bucket) {
  const Program& program = plan_.programs[bucket];
  std::vector<uint32_t>&names = step_names_.emplace_back(), &waits = wait_names_.emplace_back();
  for (size_t step = 0; step < program.steps.size(); ++step) {
    const StepDescription description = describe_step(plan_, bucket, step);
    names.push_back(trace_.name({title_of(description), category_of(description), described(description), ""}));
    std::string units;
    int64_t bytes = 0;
    for (const Gather& gather : program.gathers) {
      if (gather.first_use != static_cast<int>(step)) continue;
      const auto unit = static_cast<size_t>(gather.unit);
      units += (units.empty() ? "" : ", ") + plan_.units[unit].name;
      bytes += plan_.frozen_units[unit].bytes;
    }
    waits.push_back(
        units.empty()
            ? 0
            : trace_.name({"wait for " + units, "gather", {{"unit", units}, {"bytes", bytes}}, "micro_batch"}));
  }
  program_names_.push_back(trace_.name({concat("program of ", plan_.buckets[bucket], " tokens"),
                                        "program",
                                        {{"tokens", plan_.buckets[bucket]}, {"flops", plan_.program_flops(bucket)}},
                                        "micro_batch"}));
}

void PlanTrace::name_phases(int rank) {
  const TrafficPlan traffic = plan_.traffic_of(rank);
  for (size_t i = 0; i < kTrainerPhases; ++i) {
    const auto phase = static_cast<TrainerPhase>(i);
    const int64_t bytes = bytes_of(phase, traffic);
    OrderedJson args;
    if (bytes >= 0) args = {{"bytes", bytes}};
    const bool data = phase == TrainerPhase::kData || phase == TrainerPhase::kInputs;
    phase_names_[i] = trace_.name({to_string(phase), data ? "data" : "phase", args, number_key_of(phase)});
  }
}

void PlanTrace::make_lanes(const PlanTraceOptions& options) {
  size_t spans = 0, gathers = 0, steps = 0;  // of a micro-batch at most
  for (const Program& program : plan_.programs) {
    spans = std::max(spans, program.steps.size() + program.gathers.size() + 1);
    gathers = std::max(gathers, program.gathers.size());
    steps = std::max(steps, program.steps.size());
  }
  const auto room = [&](size_t per_micro_batch, size_t per_step) {
    // One step more, for one that runs twice. In f64: what users ask for may be any number.
    const double wanted =
        (static_cast<double>(steps_.end - steps_.begin) + 1) *
        (static_cast<double>(per_micro_batch) * static_cast<double>(plan_.slots) + static_cast<double>(per_step));
    return wanted < static_cast<double>(options.most_spans) ? static_cast<size_t>(wanted) : options.most_spans;
  };
  phases_ = &trace_.lane("steps", 1, room(0, 16), recording_);
  compute_ = &trace_.lane("compute", 2, room(spans, 0), recording_programs_);
  data_ = &trace_.lane("data", 3, room(2, 0), recording_);
  if (gathers > 0 && !options.queue) fills_ = &trace_.lane("gathers", 4, room(gathers, 0), recording_programs_);
  if (options.queue) {
    TraceLane& lane = trace_.lane(options.device + " (device time)", 5, room(steps, 0), recording_programs_);
    device_ = std::make_unique<DeviceLane>(*options.queue, lane, steps);
  }
  if (options.queue && gathers > 0) {
    TraceLane& lane = trace_.lane(options.device + " copies (device time)", 6, room(gathers, 0), recording_programs_);
    copies_ = std::make_unique<DeviceLane>(*options.queue, lane, gathers);
  }
  // Loaders run ahead, and a step that runs twice makes another one. Any thread may prepare all samples.
  const auto samples = static_cast<size_t>(options.micro_batch), ahead = 2 * static_cast<size_t>(options.prefetch + 1);
  for (int thread = 0; thread < options.loader_threads; ++thread)
    loader_.push_back(
        &trace_.lane(concat("loader thread ", thread), 10 + thread, room(samples, samples * ahead), recording_));
}

TraceLane& PlanTrace::lane_of(TrainerPhase phase) {
  return phase == TrainerPhase::kData || phase == TrainerPhase::kInputs ? *data_ : *phases_;
}

void PlanTrace::set_recording(bool on) {
  recording_.on = on;
  recording_programs_.on = on;
}

void PlanTrace::begin_phase(TrainerPhase phase, int64_t number) {
  if (phase == TrainerPhase::kStep) set_recording(steps_.contains(number));
  if (phase == TrainerPhase::kProgram) {  // a span of the lane of its steps: see begin_program
    micro_batch_ = number;
    running_ = true;
    return;
  }
  lane_of(phase).begin(phase_names_[static_cast<size_t>(phase)], number);
  if (phase == TrainerPhase::kStep && recording_.on)
    for (DeviceLane* lane : {device_.get(), copies_.get()})
      if (lane) lane->take_origin();
  if (phase == TrainerPhase::kValidation) recording_programs_.on = false;
}

void PlanTrace::end_phase(TrainerPhase phase) {
  if (phase == TrainerPhase::kProgram) {
    compute_->end_all();  // also those that something thrown left open
    waiting_ = running_ = false;
    for (DeviceLane* lane : {device_.get(), copies_.get()})
      if (lane) lane->collect();
    return;
  }
  lane_of(phase).end();
  if (phase == TrainerPhase::kValidation) recording_programs_.on = recording_.on.load();
}

void PlanTrace::begin_program(size_t bucket) {
  bucket_ = bucket;
  waiting_ = false;
  compute_->end_all();
  compute_->begin(program_names_[bucket], micro_batch_);
}

void PlanTrace::begin_gather(size_t step) {
  waiting_ = true;
  compute_->begin(wait_names_[bucket_][step], micro_batch_);
}

void PlanTrace::begin_step(size_t step) {
  if (waiting_) compute_->end();
  waiting_ = false;
  const uint32_t name = step_names_[bucket_][step];
  compute_->begin(name);
  if (device_) device_->begin(name, micro_batch_);
}

void PlanTrace::end_step(size_t /*step*/) {
  if (device_) device_->end();
  compute_->end();
}

void PlanTrace::begin_fill(size_t unit) {
  if (fills_) fills_->begin(fill_names_[unit]);
}

void PlanTrace::end_fill(size_t /*unit*/) {
  if (fills_) fills_->end();
}

void PlanTrace::begin_copy(size_t unit, cuda::Queue& copying) {
  if (copies_ && running_) copies_->begin(copy_names_[unit], micro_batch_, copying);
}

void PlanTrace::end_copy(size_t /*unit*/) {
  if (copies_) copies_->end();
}

std::string PlanTrace::device_failure() const {
  for (const DeviceLane* lane : {device_.get(), copies_.get()})
    if (lane && !lane->failure().empty()) return lane->failure();
  return "";
}

void PlanTrace::begin_sample(int thread, int64_t micro_batch) {
  if (static_cast<size_t>(thread) < loader_.size())
    loader_[static_cast<size_t>(thread)]->begin(sample_name_, micro_batch);
}

void PlanTrace::end_sample(int thread) {
  if (static_cast<size_t>(thread) < loader_.size()) loader_[static_cast<size_t>(thread)]->end();
}

}  // namespace permafrost
