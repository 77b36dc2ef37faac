#include "launch/bench/step_profile.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "core/base/check.h"
#include "launch/bench/quantile.h"

namespace permafrost {

namespace {

int64_t nanoseconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::nanoseconds(b - a).count();
}

}  // namespace

std::vector<double> ExecutorOverhead::sum() const {
  std::vector<double> both(between);
  for (size_t i = 0; i < both.size(); ++i) both[i] += within[i];
  return both;
}

StepProfile::StepProfile(const Plan& plan, ThreadPool& pool, int rank, int64_t steps, cuda::Queue* queue)
    : plan_(plan), pool_(pool), most_steps_(static_cast<size_t>(steps)) {
  size_t largest = 0;
  for (const Program& program : plan.programs) {
    first_of_bucket_.push_back(ops_);
    ops_ += program.steps.size();
    largest = std::max(largest, program.steps.size());
  }
  times_.resize(ops_ * most_steps_);
  // A step that is run again has more; what is too much is not noted.
  const size_t calls = 2 * most_steps_ * largest * static_cast<size_t>(plan.micro_batches_of(rank));
  overhead_.between.reserve(calls);
  overhead_.within.reserve(calls);
  overhead_.whole.reserve(calls);
  accounts_.reserve(most_steps_);
  for (auto* list : {&step_seconds_, &gather_ms_, &gap_ms_}) list->reserve(most_steps_);
  device_phase_ms_.reserve(most_steps_);
  if (queue)
    device_.reset(
        new OnDevice{{MarkedWork(*queue, largest), MarkedWork(*queue, largest)}, MarkedWork(*queue, kPhaseKinds)});
  else
    pool_.time_runs(&pool_nanoseconds_);
}

StepProfile::~StepProfile() {
  if (!device_) pool_.time_runs(nullptr);
}

void StepProfile::begin_training_step() {
  PERMAFROST_CHECK(training_step_ < most_steps_, "step profile: there is room for ", most_steps_,
                   " steps; got one more");
  gather_nanoseconds_ = gaps_nanoseconds_ = 0;
  phase_nanoseconds_ = {};
}

void StepProfile::end_training_step(double seconds, const StepAccount& account) {
  if (device_) take_device_times();
  ++training_step_;
  accounts_.push_back(account);
  step_seconds_.push_back(seconds);
  gather_ms_.push_back(static_cast<double>(gather_nanoseconds_) / 1e6);
  gap_ms_.push_back(static_cast<double>(gaps_nanoseconds_) / 1e6);
}

void StepProfile::begin_program(size_t bucket) {
  bucket_ = bucket;
  waited_ = false;
  if (!device_) end_ = Clock::now();
}

void StepProfile::begin_gather(size_t /*step*/) {
  waited_ = true;
  if (device_) return;
  begin_ = Clock::now();
  gap_nanoseconds_ = nanoseconds_between(end_, begin_);
}

void StepProfile::begin_step(size_t step) {
  if (device_) return device_->programs[device_->current].begin(at(bucket_, step), std::exchange(waited_, false));
  const auto now = Clock::now();
  if (waited_)
    gather_nanoseconds_ += nanoseconds_between(begin_, now);
  else
    gap_nanoseconds_ = nanoseconds_between(end_, now);
  waited_ = false;
  pool_before_ = pool_nanoseconds_;
  begin_ = now;
}

void StepProfile::end_step(size_t step) {
  if (device_) return device_->programs[device_->current].end();
  const int64_t took = nanoseconds_between(begin_, Clock::now()), in_pool = pool_nanoseconds_ - pool_before_;
  Times& times = times_[training_step_ * ops_ + at(bucket_, step)];
  times.nanoseconds += took;
  times.pool_nanoseconds += in_pool;
  ++times.calls;
  gaps_nanoseconds_ += gap_nanoseconds_;
  if (overhead_.between.size() < overhead_.between.capacity()) {
    overhead_.between.push_back(static_cast<double>(gap_nanoseconds_) / 1e3);
    overhead_.within.push_back(static_cast<double>(took - in_pool) / 1e3);
    overhead_.whole.push_back(static_cast<double>(took) / 1e3);
  }
  end_ = Clock::now();  // what is noted here is not the executor's
}

ProfiledOp StepProfile::describe(size_t bucket, size_t step) const { return {describe_step(plan_, bucket, step)}; }

/// ops: indices of one row of times_.
ProfiledOp StepProfile::summarise(const std::vector<size_t>& ops, ProfiledOp like) const {
  std::vector<double> seconds;
  int64_t calls = 0, outside = 0;
  for (size_t t = 0; t < training_step_; ++t) {
    int64_t nanoseconds = 0;
    for (const size_t op : ops) {
      const Times& times = times_[t * ops_ + op];
      nanoseconds += times.nanoseconds;
      outside += times.nanoseconds - times.pool_nanoseconds;
      calls += times.calls;
    }
    seconds.push_back(static_cast<double>(nanoseconds) / 1e9);
  }
  const auto steps = static_cast<double>(std::max<size_t>(training_step_, 1));
  like.calls = static_cast<double>(calls) / steps;
  like.seconds = bench::quantile(seconds, 0.5);
  like.mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) / steps;
  like.outside_us = calls == 0 ? 0 : static_cast<double>(outside) / 1e3 / static_cast<double>(calls);
  return like;
}

std::vector<ProfiledOp> StepProfile::operations() const {
  std::vector<ProfiledOp> ops;
  for (size_t b = 0; b < plan_.programs.size(); ++b)
    for (size_t s = 0; s < plan_.programs[b].steps.size(); ++s) {
      ops.push_back(summarise({at(b, s)}, describe(b, s)));
      if (ops.back().calls == 0) ops.pop_back();
    }
  return ops;
}

std::vector<ProfiledOp> StepProfile::groups() const {
  struct Group {
    ProfiledOp like;
    std::vector<size_t> ops;
  };
  // Gradients that are not needed make calls of one shape differ: then they are groups of their own.
  std::map<std::tuple<std::string, std::string, std::string, double, int64_t>, Group> found;
  for (size_t b = 0; b < plan_.programs.size(); ++b)
    for (size_t s = 0; s < plan_.programs[b].steps.size(); ++s) {
      ProfiledOp op = describe(b, s);
      op.name.clear();
      op.unit.clear();
      op.value.clear();
      Group& group = found[{op.kind, op.direction, op.shape, op.flops, op.bytes}];
      group.like = op;
      group.ops.push_back(at(b, s));
    }
  std::vector<ProfiledOp> groups;
  for (const auto& [key, group] : found) {
    groups.push_back(summarise(group.ops, group.like));
    if (groups.back().calls == 0) groups.pop_back();
  }
  std::ranges::sort(groups, std::greater(), &ProfiledOp::mean);
  return groups;
}

double StepProfile::median_step_seconds() const { return bench::quantile(step_seconds_, 0.5); }

std::vector<double> StepProfile::operations_ms() const {
  std::vector<double> operations(training_step_, 0);
  for (size_t t = 0; t < training_step_; ++t)
    for (size_t op = 0; op < ops_; ++op) operations[t] += static_cast<double>(times_[t * ops_ + op].nanoseconds) / 1e6;
  return operations;
}

NamedMilliseconds StepProfile::medians_of(const std::vector<NamedValue>& values) const {
  NamedMilliseconds medians;
  for (const auto& [name, value] : values) {
    std::vector<double> of_steps;
    for (size_t t = 0; t < training_step_; ++t) of_steps.push_back(value(t));
    medians.emplace_back(name, bench::quantile(of_steps, 0.5));
  }
  return medians;
}

NamedMilliseconds StepProfile::parts() const {
  if (device_) return parts_on_device();
  const std::vector<double> operations = operations_ms();
  std::vector<NamedValue> values{
      {"waiting for data", [&](size_t t) { return accounts_[t].data_ms; }},
      {"filling inputs", [&](size_t t) { return accounts_[t].inputs_ms; }},
      {"operations", [&](size_t t) { return operations[t]; }},
      {"between operations", [&](size_t t) { return gap_ms_[t]; }},
      {"waiting for sharded weights", [&](size_t t) { return gather_ms_[t]; }},
  };
  for (size_t phase = 1; phase < kPhaseKinds; ++phase)
    values.emplace_back(to_string(static_cast<PhaseKind>(phase)),
                        [this, phase](size_t t) { return accounts_[t].phase_ms[phase]; });
  values.emplace_back("other", [&](size_t t) {
    const StepAccount& account = accounts_[t];
    double other = step_seconds_[t] * 1e3;
    for (const double phase : account.phase_ms) other -= phase;
    return other + account.phase_ms[0] - account.data_ms - account.inputs_ms - account.program_ms;
  });
  return medians_of(values);
}

}  // namespace permafrost
