#pragma once
#include "data/loader/loader.h"
#include "models/epalm/inputs.h"
#include "parallel/plan/plan.h"
#include "parallel/run/executor.h"

namespace permafrost {

/// Writes a micro-batch of the loader into the inputs of a program. Reuses its memory from call to call.
class InputFiller {
 public:
  InputFiller(const EpalmConfig& model, uint64_t seed, int32_t pad_id) : model_(model), seed_(seed), pad_id_(pad_id) {}

  /// images: of `batch`, or others of the same shape (exchanged). row_weight: of every token that counts in the loss.
  void fill(const MicroBatch& batch, const float* images, float row_weight, const Executor& executor, size_t bucket);

 private:
  EpalmConfig model_;
  uint64_t seed_;
  int32_t pad_id_;
  TextBatch text_;
};

}  // namespace permafrost
