#pragma once
#include <optional>
#include <string>
#include <vector>

#include "configs/config.pb.h"
#include "launch/training/plan_setup.h"
#include "models/decoding/search.h"
#include "models/epalm/decoding.h"
#include "models/epalm/decoding_inputs.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// How a configuration generates: everything but weights and data.
struct GenerationSetup {
  EpalmConfig model;
  EpalmDecodingShape shape;
  SearchConfig search;
  DecodingPadding padding = DecodingPadding::kClean;
  bool cached = true;
  std::string note;  ///< for the log where decoding.cache AUTO keeps nothing: why; else empty
  int64_t max_new_tokens = 1;
  std::optional<int64_t> max_length;  ///< of the whole text

  /// Of a prompt of this many tokens (padding included, where it counts).
  SearchPrompt prompt(int64_t length) const;
};

/// evaluation.decoding and evaluation.batch of a resolved configuration, for prompts of at most `longest_prompt`
/// tokens. Errors: kConfig when cache ON would not be exact, when prompts and new tokens do not fit the positions of
/// the text model, or when the beams do not fit its vocabulary.
GenerationSetup generation_setup(const config::Config& config, int64_t longest_prompt, int32_t end_id, int32_t pad_id);

/// The plan of its two programs: bucket 0 runs once per batch, bucket 1 once per token (kPrefill and kStep, or kSee and
/// kWhole). training: null, or the plan whose weights shall be used: then units have its policies.
Plan generation_plan(const config::Config& config, const PlanChoices& choices, const GenerationSetup& setup,
                     const Plan* training = nullptr);

}  // namespace permafrost
