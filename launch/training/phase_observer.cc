#include "launch/training/phase_observer.h"

namespace permafrost {

const char* to_string(TrainerPhase phase) {
  switch (phase) {
    case TrainerPhase::kStep:
      return "step";
    case TrainerPhase::kMicroBatches:  // and below: as to_string(PhaseKind) says
      return "micro_batches";
    case TrainerPhase::kData:
      return "wait for data";
    case TrainerPhase::kInputs:
      return "write inputs";
    case TrainerPhase::kProgram:
      return "program";
    case TrainerPhase::kVote:
      return "vote";
    case TrainerPhase::kReduceGradients:
      return "reduce_gradients";
    case TrainerPhase::kGatherNorms:
      return "gather_norms";
    case TrainerPhase::kOptimizer:
      return "optimizer";
    case TrainerPhase::kGatherWorking:
      return "gather_working";
    case TrainerPhase::kValidation:
      return "validation";
    case TrainerPhase::kCheckpoint:
      return "checkpoint";
    case TrainerPhase::kFrozenCheck:
      return "check of frozen weights";
  }
  return "?";
}

}  // namespace permafrost
