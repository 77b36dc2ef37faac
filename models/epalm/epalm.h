#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "core/graph/freezing.h"
#include "core/graph/graph.h"
#include "models/adaptor.h"
#include "models/model_shape.h"
#include "models/opt.h"
#include "models/vit.h"

namespace permafrost {

/// eP-ALM: class tokens of the last vision blocks, projected by connectors, become one extra token (VIS) at position 0
/// of the text in a window of late layers: inserted before the first, overwritten before the others. Optionally soft
/// prompts in front of the text and adapters in the text layers. Only these three are trained.
/// Source: Shukor, Dancette, Cord: eP-ALM, ICCV 2023, and its released code.
struct EpalmConfig {
  enum class Prompt : uint8_t {
    kNone,
    kTable,  ///< the vectors themselves
    kMlp,    ///< the vectors through linear, tanh, linear
  };
  enum class VisRow : uint8_t {
    kPublished,  ///< VIS attends to all tokens, later words included
    kCausal,     ///< to itself alone, being the first
  };
  enum class Padding : uint8_t {
    kPublished,  ///< the published VIS row also sees padding up to the longest text of the micro-batch
    kClean,      ///< it does not: a sample's loss does not depend on its neighbours
  };

  VitConfig vision;
  OptConfig text;
  bool shared_connector = false;  ///< one connector for all features instead of one each
  int64_t features = 6;           ///< last vision blocks used
  int64_t start = 0, end = 0;     ///< text layers before which VIS is written: start .. end - 1
  Prompt prompt = Prompt::kMlp;
  int64_t prompt_length = 10;  ///< not looked at without prompt
  std::optional<AdaptorConfig> adaptor;
  VisRow vis_row = VisRow::kPublished;
  Padding padding = Padding::kPublished;
  bool frozen_dropout = false;  ///< published quirk: dropout at text.dropout inside the frozen text model
  float label_smoothing = 0;

  int64_t prompt_tokens() const { return prompt == Prompt::kNone ? 0 : prompt_length; }
  /// Slots in front of the text from layer `start` on: VIS and prompts.
  int64_t slots() const { return 1 + prompt_tokens(); }
  /// The feature written before this layer, or nothing.
  std::optional<int64_t> feature_of_layer(int64_t layer) const;
  /// Throws kConfig naming what does not fit.
  void check() const;
};

/// Rows of logits per sample. For training, those of the text that predict something: T - 1; with all values VIS,
/// prompts and all of the text: 1 + P + T.
int64_t epalm_logit_rows(const EpalmConfig& config, const ModelShape& shape);

/// The graph of one micro-batch: same parameters in the same order for every shape. With all values the last vision
/// block is there whole, for training only what its class token needs.
///
/// Inputs (see models/epalm/inputs.h, which fills all but the first and the last):
///   images (B, C, S, S) f32, normalised
///   input_ids, position_ids (B, T) i32
///   lengths_before, lengths_after (B) i32: valid keys, prompts and VIS included, in layers without and with VIS
///   open_lengths (B) i32: keys that the published VIS row sees; not there with vis_row kCausal
///   labels (B, R) i32, row_weight (B, R) f32: what each of R = epalm_logit_rows rows predicts, its share of the loss
///   random_address (2 + B) i64: seed, epoch, sample ids; only with frozen_dropout
/// Values: vision.*, features.{j} (B, D), connected.{j} (B, d), prompt.out (P, word_embed_proj_dim), text.embed.out
/// (B, P + T, d), text.layers.{i}.out, text.final.out, logits (with all_values), row_loss (B R), loss (1) f64.
/// Parameters: vision.<timm>, connector.{j}.weight|bias, prompt_module.prefix_embedding.{0,1,3}.weight|bias,
/// text.<Hugging Face>, model_text.model.decoder.layers.{i}.{fc2.1|fc2|self_attn}.adapter.{k}.weight|bias.
Graph build_epalm(const EpalmConfig& config, DType compute, const ModelShape& shape);

/// What trains unless a configuration says otherwise: connectors, prompts, adapters.
std::vector<FreezeRule> epalm_freezing(const EpalmConfig& config);

}  // namespace permafrost
