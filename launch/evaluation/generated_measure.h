#pragma once
#include <memory>

#include "launch/training/trainer.h"

namespace permafrost {

/// The measure of a validation.metric that looks at generated texts, over evaluation.data with the weights of
/// `trainer`; null for metrics that it measures itself, and without validation. vqa_accuracy is the score that the
/// answers of the dataset give (Answer::score). Collective. config, runtime and trainer must outlive it. Errors: as in
/// Evaluator.
std::unique_ptr<ValidationMeasure> make_generated_measure(const config::Config& config, Runtime& runtime,
                                                          const Trainer& trainer);

}  // namespace permafrost
