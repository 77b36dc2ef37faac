#pragma once
#include <optional>

#include "models/adaptor.h"
#include "models/model.h"
#include "models/opt.h"

namespace permafrost {

/// An OPT decoder trained on texts alone: how a backbone is trained from scratch or, with an adaptor in every layer,
/// how a frozen one is adapted. Source of the latter: Houlsby et al., Parameter-Efficient Transfer Learning for NLP,
/// ICML 2019; the adaptors are those of MAGMA, which eP-ALM has too.
struct LanguageModelConfig {
  OptConfig text;  ///< its dropout is not used
  float label_smoothing = 0;
  std::optional<AdaptorConfig> adaptor = std::nullopt;

  /// Throws kConfig naming what does not fit.
  void check() const;
};

/// The graph of one micro-batch.
/// Inputs: input_ids, position_ids (B, T) i32, lengths (B) i32: valid keys, labels (B, R) i32 and row_weight (B, R) f32
/// with R = T - 1 rows, those that predict something, or T with all_values.
/// Values: text.* as in build_opt, logits (B, R, V) with all_values alone, row_loss (B R), loss (1) f64. Units: those
/// of build_opt, text.rows (training only), loss (with all_values); those and the parameters of adaptors are in
/// models/opt_adaptor.h.
Graph build_language_model(const LanguageModelConfig& config, DType compute, const ModelShape& shape);

/// The same behind what is in the graph already, `config` checked. With `front`, N tokens (B, N, d) that every text
/// stands behind, have positions as tokens of the text do, and predict nothing: position_ids (B, N + T), text.embed.out
/// (B, N + T, d), lengths with the N; labels, row_weight and logits for R = T - 1 rows of the text, or N + T.
void add_language_model(Graph& graph, const LanguageModelConfig& config, const ModelShape& shape, Value front = {});

/// Fills the inputs that add_language_model makes; `slots`: the N tokens in front. Errors: those of check_text_inputs.
void fill_language_model(std::string_view who, const ModelBatch& batch, const InputTensors& inputs, int64_t slots);

/// Everything trains; with an adaptor, the adaptors alone.
class LanguageModel final : public Model {
 public:
  /// Errors: kConfig from check().
  explicit LanguageModel(const LanguageModelConfig& config);
  Graph build(DType compute, const ModelShape& shape) const override;
  std::vector<FreezeRule> freezing() const override { return {{config_.adaptor ? "model_text.*" : "*", true}}; }
  void fill(const ModelBatch& batch, const InputTensors& inputs) const override;
  int64_t image_size() const override { return 0; }
  int64_t vocab() const override { return config_.text.vocab; }

 private:
  LanguageModelConfig config_;
};

}  // namespace permafrost
