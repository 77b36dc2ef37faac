#pragma once
#include <cstddef>
#include <cstdint>

#include "parallel/plan/plan.h"

namespace permafrost {

/// What a trainer is at. All but the last three are within kStep; kData, kInputs and kProgram are within kMicroBatches.
enum class TrainerPhase : uint8_t {
  kStep,
  kMicroBatches,
  kData,     ///< waiting for the loader
  kInputs,   ///< writing a micro-batch into the inputs of a program
  kProgram,  ///< forward, backward and sums of a micro-batch
  kVote,
  kReduceGradients,
  kGatherNorms,
  kOptimizer,
  kGatherWorking,
  kValidation,
  kCheckpoint,
  kFrozenCheck,  ///< whether frozen weights still are what they were
};
constexpr size_t kTrainerPhases = 13;

/// Of constants, which end with a 0 byte.
const char* to_string(TrainerPhase phase);

constexpr TrainerPhase phase_of(PhaseKind kind) {
  switch (kind) {
    case PhaseKind::kMicroBatches:
      return TrainerPhase::kMicroBatches;
    case PhaseKind::kVote:
      return TrainerPhase::kVote;
    case PhaseKind::kReduceGradients:
      return TrainerPhase::kReduceGradients;
    case PhaseKind::kGatherNorms:
      return TrainerPhase::kGatherNorms;
    case PhaseKind::kOptimizer:
      return TrainerPhase::kOptimizer;
    case PhaseKind::kGatherWorking:
      break;
  }
  return TrainerPhase::kGatherWorking;
}

/// Sees a trainer at work, to time it. Called on the thread that trains; must not throw. Must neither allocate nor wait
/// but for the device: at the begin of kStep, and at the end of kProgram.
class PhaseObserver {
 public:
  virtual ~PhaseObserver() = default;
  /// number: of kInputs and kProgram the micro-batch's through the training; of kData this rank's micro-batch in the
  /// step; of all others the steps done before.
  virtual void begin_phase(TrainerPhase phase, int64_t number) = 0;
  virtual void end_phase(TrainerPhase phase) = 0;
};

/// A phase from here to the end of the block, or to end(), also when something is thrown. observer: null for nobody.
class PhaseScope {
 public:
  PhaseScope(PhaseObserver* observer, TrainerPhase phase, int64_t number) : observer_(observer), phase_(phase) {
    if (observer_) observer_->begin_phase(phase_, number);
  }
  ~PhaseScope() { end(); }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;
  void end() {
    if (observer_) observer_->end_phase(phase_);
    observer_ = nullptr;
  }

 private:
  PhaseObserver* observer_;
  TrainerPhase phase_;
};

}  // namespace permafrost
