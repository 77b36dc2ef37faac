#pragma once
#include "models/model.h"
#include "models/opt.h"

namespace permafrost {

/// An OPT decoder trained on texts alone: how a backbone is trained from scratch.
struct LanguageModelConfig {
  OptConfig text;  ///< its dropout is not used
  float label_smoothing = 0;

  /// Throws kConfig naming what does not fit.
  void check() const;
};

/// The graph of one micro-batch.
/// Inputs: input_ids, position_ids (B, T) i32, lengths (B) i32: valid keys, labels (B, R) i32 and row_weight (B, R) f32
/// with R = T - 1 rows, those that predict something, or T with all_values.
/// Values: text.* as in build_opt, logits (B, R, V), row_loss (B R), loss (1) f64. Units: those of build_opt, text.rows
/// (training only), loss.
Graph build_language_model(const LanguageModelConfig& config, DType compute, const ModelShape& shape);

/// Everything trains.
class LanguageModel final : public Model {
 public:
  /// Errors: kConfig from check().
  explicit LanguageModel(const LanguageModelConfig& config);
  Graph build(DType compute, const ModelShape& shape) const override;
  std::vector<FreezeRule> freezing() const override { return {{"*", true}}; }
  void fill(const ModelBatch& batch, const InputTensors& inputs) const override;
  int64_t image_size() const override { return 0; }
  int64_t vocab() const override { return config_.text.vocab; }
  int64_t labels() const override { return 0; }
  int64_t classes() const override { return 0; }

 private:
  LanguageModelConfig config_;
};

}  // namespace permafrost
