#pragma once
#include "models/language_model.h"
#include "models/model.h"
#include "models/opt.h"
#include "models/vit.h"

namespace permafrost {

/// All patch tokens of an image, each projected to the width of a text model and put in front of the text, which the
/// frozen decoder goes on from. Only the projector trains.
/// Source: Liu et al., Visual Instruction Tuning (LLaVA), NeurIPS 2023, arXiv 2304.08485, first stage, section 4.2;
/// kMlp as in Liu et al., Improved Baselines with Visual Instruction Tuning, arXiv 2310.03744. Deviations: see
/// docs/notes/models.md.
struct ProjectorConfig {
  enum class Kind : uint8_t {
    kLinear,  ///< one linear layer
    kMlp,     ///< linear to the text width, exact GELU, linear
  };
  VitConfig vision;
  OptConfig text;  ///< its dropout is not used
  Kind kind = Kind::kLinear;
  float label_smoothing = 0;

  /// N, tokens of an image in front of the text: its patches, without the class token.
  int64_t image_tokens() const { return vision.tokens() - 1; }
  /// Throws kConfig naming what does not fit.
  void check() const;
};

/// The graph of one micro-batch.
/// Inputs: images (B, C, S, S) f32, normalised; those of add_language_model with N tokens in front.
/// Values: vision.* as in build_vit with all tokens, projector.out (B, N, d), those of build_language_model.
/// Parameters: vision.<timm>, projector.0.weight (d, D) and .bias, with kMlp projector.2.weight (d, d) and .bias,
/// text.<Hugging Face>. Units: those of build_vit, projector, those of build_language_model.
Graph build_projector(const ProjectorConfig& config, DType compute, const ModelShape& shape);

/// The projector trains.
class ProjectorModel final : public Model {
 public:
  /// Errors: kConfig from check().
  explicit ProjectorModel(const ProjectorConfig& config);
  Graph build(DType compute, const ModelShape& shape) const override;
  std::vector<FreezeRule> freezing() const override { return {{"projector.*", true}}; }
  void fill(const ModelBatch& batch, const InputTensors& inputs) const override;
  int64_t image_size() const override { return config_.vision.image_size; }
  int64_t vocab() const override { return config_.text.vocab; }

 private:
  ProjectorConfig config_;
};

}  // namespace permafrost
