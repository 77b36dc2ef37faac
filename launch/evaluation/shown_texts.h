#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "launch/evaluation/evaluator.h"

namespace permafrost {

/// The first texts of an evaluation as people look at them: a line each, "000012.png: a red circle (expected a red
/// square)"; a question stands before its answer.
std::string text_lines(const Evaluator& evaluator, std::span<const EvaluatedText> texts, int64_t count);

/// The same as pictures with the texts below, in green where exact_match is 1 and else in red with what was expected;
/// grey where the data have no answer. Images are read through the dataset, decoded as the model's, and not
/// transformed. Errors: kStorage naming the file; kData naming the image.
void write_text_sheet(const std::filesystem::path& file, const Evaluator& evaluator,
                      std::span<const EvaluatedText> texts, int64_t count);

/// Ends where write_text_sheet could not write, before work is spent. Errors: kStorage.
void require_folder_of(const std::filesystem::path& file);

}  // namespace permafrost
