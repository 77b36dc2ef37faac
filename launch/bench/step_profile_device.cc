// What a profile takes from the marks of a device.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/check.h"
#include "launch/bench/step_profile.h"

namespace permafrost {

namespace {

int64_t nanoseconds_on_device(const cuda::OwnedMark& begin, const cuda::OwnedMark& end) {
  return std::llround(cuda::milliseconds_between(*begin, *end) * 1e6);
}

/// Of what a device works on behind the programs. kPhaseKinds: of nothing there.
size_t device_phase(TrainerPhase phase) {
  for (size_t kind = 0; kind < kPhaseKinds; ++kind) {
    const auto of = static_cast<PhaseKind>(kind);
    if (of != PhaseKind::kMicroBatches && of != PhaseKind::kVote && phase_of(of) == phase) return kind;
  }
  return kPhaseKinds;
}

}  // namespace

void StepProfile::begin_phase(TrainerPhase phase, int64_t /*number*/) {
  if (!device_) return;
  if (const size_t kind = device_phase(phase); kind < kPhaseKinds) device_->phases.begin(kind, 0);
}

void StepProfile::end_phase(TrainerPhase phase) {
  if (!device_) return;
  if (device_phase(phase) < kPhaseKinds) device_->phases.end();
  if (phase != TrainerPhase::kProgram) return;
  device_->current = 1 - device_->current;
  take_program(device_->programs[device_->current]);  // the one before; the device works on the other one meanwhile
}

void StepProfile::take_program(MarkedWork& program) {
  const MarkedWork::Piece* before = nullptr;
  program.collect([&](const MarkedWork::Piece& piece) {
    const int64_t took = nanoseconds_on_device(piece.begin, piece.end);
    Times& times = times_[training_step_ * ops_ + piece.what];
    times.nanoseconds += took;
    ++times.calls;
    const bool has_room = overhead_.whole.size() < overhead_.whole.capacity();
    if (has_room) overhead_.whole.push_back(static_cast<double>(took) / 1e3);
    if (before) {
      const int64_t gap = nanoseconds_on_device(before->end, piece.begin);
      const bool waited = piece.number != 0;
      (waited ? gather_nanoseconds_ : gaps_nanoseconds_) += gap;
      if (has_room && !waited) overhead_.between.push_back(static_cast<double>(gap) / 1e3);
    }
    before = &piece;
  });
}

void StepProfile::take_device_times() {
  for (MarkedWork& program : device_->programs) take_program(program);
  device_->phases.collect([&](const MarkedWork::Piece& piece) {
    phase_nanoseconds_[piece.what] += nanoseconds_on_device(piece.begin, piece.end);
  });
  for (const MarkedWork* work : {&device_->programs[0], &device_->programs[1], &device_->phases})
    if (!work->failure().empty())
      fail(ErrorKind::kInternal, "step profile: times of the device must be readable; got ", work->failure());
  std::array<double, kPhaseKinds>& phases = device_phase_ms_.emplace_back();
  std::ranges::transform(phase_nanoseconds_, phases.begin(),
                         [](int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e6; });
}

NamedMilliseconds StepProfile::parts_on_device() const {
  const std::vector<double> operations = operations_ms();
  std::vector<NamedValue> values{
      {"operations", [&](size_t t) { return operations[t]; }},
      {"between operations", [&](size_t t) { return gap_ms_[t]; }},
      {"waiting for sharded weights", [&](size_t t) { return gather_ms_[t]; }},
      {"around operations",
       [&](size_t t) {
         const auto& phases = device_phase_ms_[t];
         return accounts_[t].device_ms - operations[t] - gap_ms_[t] - gather_ms_[t] -
                std::accumulate(phases.begin(), phases.end(), 0.0);
       }},
  };
  for (size_t kind = 0; kind < kPhaseKinds; ++kind)
    if (device_phase(phase_of(static_cast<PhaseKind>(kind))) == kind)
      values.emplace_back(to_string(static_cast<PhaseKind>(kind)),
                          [this, kind](size_t t) { return device_phase_ms_[t][kind]; });
  values.emplace_back("other", [&](size_t t) { return step_seconds_[t] * 1e3 - accounts_[t].device_ms; });
  return medians_of(values);
}

NamedMilliseconds StepProfile::host_parts() const {
  std::vector<NamedValue> values{
      {"waiting for data", [&](size_t t) { return accounts_[t].data_ms; }},
      {"filling inputs", [&](size_t t) { return accounts_[t].inputs_ms; }},
      {"programs", [&](size_t t) { return accounts_[t].program_ms; }},
  };
  for (size_t phase = 1; phase < kPhaseKinds; ++phase)
    values.emplace_back(to_string(static_cast<PhaseKind>(phase)),
                        [this, phase](size_t t) { return accounts_[t].phase_ms[phase]; });
  return medians_of(values);
}

double StepProfile::device_ms() const {
  return medians_of({{"", [&](size_t t) { return accounts_[t].device_ms; }}})[0].second;
}

}  // namespace permafrost
