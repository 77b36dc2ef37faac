#pragma once
#include <memory>
#include <span>
#include <vector>

#include "launch/evaluation/generation_setup.h"
#include "launch/runtime.h"
#include "parallel/run/executor.h"

namespace permafrost {

/// Texts of images and prompts, a batch at a time, on one rank. A batch always has the configured shape, so that what a
/// text becomes does not depend on how many others there are.
///
/// Where weights are gathered between nodes (plan.gather kCollective), generate is collective over all ranks: each
/// calls it equally often, those without a batch with none.
class Generator {
 public:
  /// With weights of its own: those that config.weights names. `plan`: of generation_plan for this setup. All must
  /// outlive the generator. Collective. Errors: kWeights, kStorage.
  Generator(const config::Config& config, Runtime& runtime, const GenerationSetup& setup, const Plan& plan);
  /// With the weights of a training run, as they are at each call; its memory and plan must outlive the generator.
  /// Collective. Errors: kInvalidArgument when the plans place weights differently.
  Generator(const config::Config& config, Runtime& runtime, const GenerationSetup& setup, const Plan& plan,
            const StepMemory& lender, const Plan& lender_plan);

  /// What was loaded, for the log.
  const std::vector<std::string>& notes() const { return notes_; }
  /// Floats of one image, (channels, size, size).
  int64_t image_floats() const;

  /// prompts: up to setup.shape.batch, each of 1 to setup.shape.prompt tokens; images: one behind the other,
  /// normalised. One text per prompt. Errors: kInvalidArgument; kNonFinite.
  std::vector<FoundText> generate(std::span<const std::vector<int32_t>> prompts, std::span<const float> images);

  /// That all ranks computed attention alike in what they generated. Collective. Errors: kConfig.
  void require_same_attention() const;

 private:
  void load(const config::Config& config);
  bool together() const;
  bool anyone(bool here);
  void begin(const DecodingTexts* texts, std::span<const float> images);
  std::span<const float> logits(size_t bucket) const;

  Runtime& runtime_;
  const GenerationSetup& setup_;
  const Plan& plan_;
  StepMemory memory_;
  std::unique_ptr<Group> gather_group_;
  Executor executor_;
  std::vector<std::string> notes_;
};

}  // namespace permafrost
