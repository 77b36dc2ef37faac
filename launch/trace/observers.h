#pragma once
#include <algorithm>
#include <vector>

#include "launch/training/phase_observer.h"
#include "parallel/run/executor_observer.h"

namespace permafrost {

/// Several observers as one. Begins are told in the order in which they were added, ends the other way round, so that
/// what one does stands within the spans of those before it. Changed only between programs.
class Observers final : public ExecutorObserver, public PhaseObserver {
 public:
  void add(ExecutorObserver* observer) { executor_.push_back(observer); }
  void add(PhaseObserver* observer) { phases_.push_back(observer); }
  void remove(ExecutorObserver* observer) { std::erase(executor_, observer); }
  void remove(PhaseObserver* observer) { std::erase(phases_, observer); }
  bool sees_programs() const { return !executor_.empty(); }
  bool sees_phases() const { return !phases_.empty(); }

  void begin_program(size_t bucket) override {
    for (ExecutorObserver* each : executor_) each->begin_program(bucket);
  }
  void begin_gather(size_t step) override {
    for (ExecutorObserver* each : executor_) each->begin_gather(step);
  }
  void end_gather(size_t step) override {
    for (size_t i = executor_.size(); i-- > 0;) executor_[i]->end_gather(step);
  }
  void begin_step(size_t step) override {
    for (ExecutorObserver* each : executor_) each->begin_step(step);
  }
  void end_step(size_t step) override {
    for (size_t i = executor_.size(); i-- > 0;) executor_[i]->end_step(step);
  }
  void begin_fill(size_t unit) override {
    for (ExecutorObserver* each : executor_) each->begin_fill(unit);
  }
  void end_fill(size_t unit) override {
    for (size_t i = executor_.size(); i-- > 0;) executor_[i]->end_fill(unit);
  }
  void begin_copy(size_t unit, cuda::Queue& copying) override {
    for (ExecutorObserver* each : executor_) each->begin_copy(unit, copying);
  }
  void end_copy(size_t unit) override {
    for (size_t i = executor_.size(); i-- > 0;) executor_[i]->end_copy(unit);
  }
  bool needs_steps() const override {
    return std::ranges::any_of(executor_, [](const ExecutorObserver* each) { return each->needs_steps(); });
  }
  void begin_phase(TrainerPhase phase, int64_t number) override {
    for (PhaseObserver* each : phases_) each->begin_phase(phase, number);
  }
  void end_phase(TrainerPhase phase) override {
    for (size_t i = phases_.size(); i-- > 0;) phases_[i]->end_phase(phase);
  }

 private:
  std::vector<ExecutorObserver*> executor_;
  std::vector<PhaseObserver*> phases_;
};

}  // namespace permafrost
