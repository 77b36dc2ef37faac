#pragma once
#include <memory>

#include "data/loader/loader.h"
#include "models/model.h"
#include "parallel/run/executor.h"

namespace permafrost {

/// Writes a micro-batch of the loader into the inputs of a program. Takes its memory when it is made.
class InputFiller {
 public:
  /// micro_batch, max_tokens: the largest batch it will be given. seed: of random numbers that the model draws.
  InputFiller(std::shared_ptr<const Model> model, uint64_t seed, int32_t pad_id, int64_t micro_batch,
              int64_t max_tokens);

  /// row_weight: of everything that counts in the loss (a token, a class label). loss_scale: for a program that has
  /// such an input (loss_scale_input).
  void fill(const MicroBatch& batch, float row_weight, const Executor& executor, size_t bucket, float loss_scale = 1);

 private:
  void take_text(const MicroBatch& batch);

  std::shared_ptr<const Model> model_;
  ModelBatch batch_;
};

}  // namespace permafrost
