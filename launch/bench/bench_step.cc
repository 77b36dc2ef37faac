#include "launch/bench/bench_step.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "core/base/sha256.h"
#include "launch/machine.h"
#include "launch/metrics/pss.h"
#include "launch/temporary_folder.h"
#include "launch/training/agreement.h"
#include "parallel/group/fail_together.h"

namespace permafrost {

namespace {

using StepClock = std::chrono::steady_clock;

double elapsed_seconds(StepClock::time_point begin) {
  return std::chrono::duration<double>(StepClock::now() - begin).count();
}

template <typename T>
void over_ranks(Group& world, std::vector<T>& values, ReduceOp op) {
  const Tensor tensor = flat(std::span(values));
  world.all_reduce(tensor, tensor, op, StreamView::caller(), "bench step").wait();
}

}  // namespace

OrderedJson StepSeries::json() const {
  return {{"first_step", first_step},
          {"seconds", seconds},
          {"losses", losses},
          {"data_wait_seconds", data_wait_seconds},
          {"device_seconds", device_seconds},
          {"samples", samples},
          {"tokens", tokens},
          {"attempts", attempts},
          {"flops", flops},
          {"moved_bytes", moved_bytes},
          {"gathered_bytes", gathered_bytes},
          {"reduced_bytes", reduced_bytes}};
}

int64_t StepMemoryUse::pss_sum() const { return std::accumulate(pss_bytes.begin(), pss_bytes.end(), int64_t{0}); }

OrderedJson StepMemoryUse::json() const {
  return {{"pss_bytes", pss_bytes},
          {"pss_sum_bytes", pss_sum()},
          {"uss_bytes", uss_bytes},
          {"peak_rss_bytes", peak_rss_bytes}};
}

OrderedJson FirstStepSeconds::json() const {
  return {{"total", total()},
          {"launch", launch},
          {"plan", plan},
          {"load_weights", load_weights},
          {"hash_frozen", hash_frozen},
          {"other_set_up", other},
          {"first_step", first_step}};
}

StepBench::StepBench(const config::Resolved& resolved, Runtime& runtime, const TraceOptions& trace, int64_t steps)
    : resolved_(resolved), runtime_(runtime) {
  to_first_step_.launch = seconds_since_process_start();
  const auto begin = StepClock::now();
  plan_ = agreed_plan(resolved.config, runtime);
  for (size_t bucket = 0; bucket < plan_.programs.size(); ++bucket)
    program_flops_.push_back(plan_.program_flops(bucket));
  to_first_step_.plan = elapsed_seconds(begin);
  trace_ = std::make_unique<RunTrace>(trace, resolved.config, plan_, runtime, 0, steps);
  trainer_ = std::make_unique<Trainer>(resolved.config, runtime, plan_);
  trace_->attach(*trainer_);
  const SetupSeconds& setup = trainer_->setup_seconds();
  to_first_step_.load_weights = setup.load_weights;
  to_first_step_.hash_frozen = setup.hash_frozen;
  to_first_step_.other = elapsed_seconds(begin) - to_first_step_.plan - setup.load_weights - setup.hash_frozen;
}

StepBench::~StepBench() = default;

double StepBench::flops_so_far() const {
  double flops = 0;
  for (size_t bucket = 0; bucket < program_flops_.size(); ++bucket)
    flops += static_cast<double>(trainer_->program_runs()[bucket]) * program_flops_[bucket];
  return flops;
}

void StepBench::require_steps(int64_t steps) const {
  const int64_t all = resolved_.config.train().max_steps(), left = all - trainer_->step();
  if (steps > left)
    fail(ErrorKind::kConfig, "bench step: expected at most the ", left, " steps that train.max_steps = ", all,
         " has left; got ", steps);
}

StepSeries StepBench::run(int64_t steps, StepProfile* profile) {
  require_steps(steps);
  StepSeries series;
  if (profile) trace_->add(*trainer_, *profile, *profile);
  series.first_step = trainer_->step();
  runtime_.world.barrier(StreamView::caller(), "bench step: all ranks begin").wait();
  for (int64_t i = 0; i < steps; ++i) {
    if (profile) profile->begin_training_step();
    const double flops_before = flops_so_far();
    const auto begin = StepClock::now();
    const StepMetrics metrics = trainer_->train_step(false);
    series.seconds.push_back(elapsed_seconds(begin));
    if (profile) profile->end_training_step(series.seconds.back(), trainer_->last_step());
    if (metrics.step == 0) to_first_step_.first_step = series.seconds.back();
    series.losses.push_back(metrics.loss);
    series.data_wait_seconds.push_back(metrics.wait_ms / 1e3);
    series.device_seconds.push_back(trainer_->last_step().device_ms / 1e3);
    series.samples.push_back(trainer_->last_step().samples);
    series.tokens.push_back(trainer_->last_step().tokens);
    const int64_t attempts = trainer_->last_step().attempts;  // all of the same programs
    series.attempts.push_back(attempts);
    series.flops.push_back((flops_so_far() - flops_before) / static_cast<double>(attempts));
    series.moved_bytes.push_back(metrics.moved_bytes);
    series.gathered_bytes.push_back(metrics.gathered_bytes);
    series.reduced_bytes.push_back(metrics.reduced_bytes);
    trainer_->check_changes(metrics);  // as `train` does behind each step, and in no step's time
  }
  if (profile) trace_->remove(*trainer_, *profile, *profile);
  for (std::vector<double>* times : {&series.seconds, &series.data_wait_seconds, &series.device_seconds})
    over_ranks(runtime_.world, *times, ReduceOp::kMax);
  over_ranks(runtime_.world, series.flops, ReduceOp::kSum);
  for (std::vector<int64_t>* bytes : {&series.moved_bytes, &series.gathered_bytes, &series.reduced_bytes})
    over_ranks(runtime_.world, *bytes, ReduceOp::kSum);
  return series;
}

StepMemoryUse StepBench::memory() {
  const auto ranks = static_cast<size_t>(runtime_.size()), self = static_cast<size_t>(runtime_.rank());
  StepMemoryUse use;
  // Shared pages are divided by who maps them: nobody leaves or enters meanwhile.
  runtime_.world.barrier(StreamView::caller(), "bench step: memory").wait();
  const ProcessMemory mine = process_memory();
  const int64_t peak = peak_memory_bytes();
  runtime_.world.barrier(StreamView::caller(), "bench step: memory").wait();
  for (const auto& [all, value] : {std::pair{&use.pss_bytes, mine.pss_bytes}, std::pair{&use.uss_bytes, mine.uss_bytes},
                                   std::pair{&use.peak_rss_bytes, peak}}) {
    all->assign(ranks, 0);
    (*all)[self] = value;
    over_ranks(runtime_.world, *all, ReduceOp::kSum);
  }
  return use;
}

StepCheckpoint StepBench::checkpoint() {
  const TemporaryFolder folder(concat("bench-step-", runtime_.rank()));
  runtime_.world.barrier(StreamView::caller(), "bench step: checkpoint").wait();
  const auto begin = StepClock::now();
  trainer_->save(CheckpointStore(folder.path().string(), 1));
  std::vector<double> seconds{elapsed_seconds(begin)};
  std::vector<int64_t> bytes{folder.file_bytes()};
  over_ranks(runtime_.world, seconds, ReduceOp::kMax);
  over_ranks(runtime_.world, bytes, ReduceOp::kSum);
  return {bytes[0], seconds[0]};
}

OrderedJson StepBench::describe() const {
  const std::string& text = resolved_.text;
  OrderedJson j;
  j["config_sha256"] = sha256(text.data(), text.size());
  j["plan_hash"] = plan_.hash();
  j["graph_hash"] = plan_.graph_hash();
  j["ranks"] = runtime_.size();
  j["nodes"] = runtime_.place.nodes;
  j["dtype"] = to_string(plan_.compute);
  j["parameters"] = {{"total", plan_.total_params}, {"trainable", plan_.trainable_params}};
  j["global_batch"] = resolved_.config.train().global_batch();
  j["micro_batch"] = resolved_.config.train().micro_batch();
  j["text_buckets"] = plan_.buckets;
  j["program_flops"] = program_flops_;  // of a micro-batch, per bucket
  const int64_t ranks = runtime_.ranks_on_node();
  const int64_t constant = process_constant_bytes(plan_.world.device);
  j["forecast_bytes"] = {{"per_rank", plan_.host_bytes_of_rank() + constant},
                         {"node", plan_.host_bytes_of_node() + ranks * constant},
                         {"process_constant", constant}};
  if (runtime_.stream) j["forecast_bytes"]["device"] = plan_.device_memory.total();
  TrafficPlan sum;
  for (int rank = 0; rank < runtime_.size(); ++rank) {
    const TrafficPlan traffic = plan_.traffic_of(rank);
    sum.moved += traffic.moved;
    sum.gathered_frozen += traffic.gathered_frozen + traffic.gathered_working;
    sum.reduced_gradients += traffic.reduced_gradients;
  }
  j["plan_bytes_per_step"] = {
      {"moved", sum.moved}, {"gathered", sum.gathered_frozen}, {"reduced", sum.reduced_gradients}};
  j["set_up_seconds"] = to_first_step_.total() - to_first_step_.first_step;
  return j;
}

}  // namespace permafrost
