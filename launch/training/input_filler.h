#pragma once
#include "data/loader/loader.h"
#include "models/epalm/inputs.h"
#include "parallel/plan/plan.h"
#include "parallel/run/executor.h"

namespace permafrost {

/// Writes a micro-batch of the loader into the inputs of a program. Takes its memory when it is made.
class InputFiller {
 public:
  /// micro_batch, max_tokens: the largest batch it will be given.
  InputFiller(const EpalmConfig& model, uint64_t seed, int32_t pad_id, int64_t micro_batch, int64_t max_tokens);

  /// images: of `batch`, or others of the same shape (exchanged). row_weight: of every token that counts in the loss.
  void fill(const MicroBatch& batch, const float* images, float row_weight, const Executor& executor, size_t bucket);

 private:
  EpalmConfig model_;
  uint64_t seed_;
  int32_t pad_id_;
  TextBatch text_;
};

}  // namespace permafrost
