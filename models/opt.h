#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/graph/graph.h"
#include "core/graph/ops/attention.h"

namespace permafrost {

/// <pad> of every published OPT vocabulary; right padding has this id.
inline constexpr int32_t kOptPadId = 1;

enum class OptSize : uint8_t { k125M, k350M, k1_3B, k2_7B, k6_7B };

/// Sizes of an OPT decoder. Published models have final_norm where they have norm_before.
struct OptConfig {
  int64_t vocab = 50272;
  int64_t layers = 12;
  int64_t hidden = 768;
  int64_t heads = 12;
  int64_t ffn = 3072;
  int64_t word_embed_proj_dim = 768;  ///< width of token embeddings; other than hidden, there are two projections
  bool norm_before = true;            ///< norms before attention and feed-forward part, or after their residuals (350M)
  bool final_norm = true;             ///< a norm after the last layer
  int64_t max_positions = 2048;
  float eps = 1e-5f;
  float dropout = 0.1f;  ///< used under a named quirk only: frozen means evaluation

  static OptConfig of(OptSize size);

  bool has_projections() const { return word_embed_proj_dim != hidden; }
  int64_t position_rows() const { return max_positions + kPositionOffset; }
  /// Throws kConfig naming what does not fit.
  void check() const;

  /// Row of the position table for the first token of a text. Padding has the row before it.
  static constexpr int64_t kPositionOffset = 2;
};

/// What is done to the text layers from outside, and what they need for it.
struct OptLayerOptions {
  MaskKind mask = MaskKind::kCausal;
  Value lengths;          ///< (B) i32 valid keys; not there = all
  Value open_lengths;     ///< (B) i32 keys that row 0 sees; with kCausalOpenFirst
  Value dropout_address;  ///< (2 + B) i64; there = published dropout at config.dropout
  /// Called inside the layer's unit with what comes in; the result is what the layer reads. Empty = nothing.
  std::function<Value(Value x)> before;
  /// Called inside the layer's unit with a part's input and output; the result takes the output's place before dropout
  /// and residual. Empty = nothing.
  std::function<Value(Value input, Value output)> after_attention, after_ffn;
  /// Takes the place of attention among the tokens of x: called inside the layer's unit with q, k, v (B, T, hidden) and
  /// what the fields above make, three products; the result is (B, T, hidden). Empty = that attention, on one product.
  std::function<Value(Value q, Value k, Value v, const AttentionConfig& config)> attend;
};

/// Builders of the parts of an OPT decoder; `build_opt` below puts them together. Parameters are called
/// `text.<Hugging Face's name>`, e.g. text.model.decoder.layers.0.fc1.weight.
/// Source: Zhang et al. 2022; transformers, models/opt/modeling_opt.py. Deviation: scores are scaled, not queries.

/// Unit text.embed: token embedding, project_in, learned positions. input_ids, position_ids: (B, T) i32 (rows of the
/// position table: see fill_position_ids); result (B, T, hidden). With `front`, N tokens (B, N, hidden) that stand
/// before the text and have positions too: position_ids (B, N + T), result (B, N + T, hidden).
Value opt_embed(Graph& graph, const OptConfig& config, Value input_ids, Value position_ids, Value front = {});
/// (..., word_embed_proj_dim) -> (..., hidden); x itself where there is no projection.
Value opt_project_in(Graph& graph, const OptConfig& config, Value x);
/// Dropout of the embeddings where `address` is there, else x itself.
Value opt_embedding_dropout(Graph& graph, const OptConfig& config, Value x, Value address);
/// Unit text.layers.{layer}; value text.layers.{layer}.out. x: (B, T, hidden).
Value opt_layer(Graph& graph, const OptConfig& config, int64_t layer, Value x, const OptLayerOptions& options);
/// Unit text.final: final norm and project_out, where there are any; value text.final.out (..., word_embed_proj_dim).
Value opt_final(Graph& graph, const OptConfig& config, Value x);
/// Unit text.head: the tied head; value `logits` (..., vocab) f32.
Value opt_head(Graph& graph, const OptConfig& config, Value x);
/// Unit text.head: the tied head and its cross-entropy in one, without logits (core/graph/ops/head_loss.h); values
/// row_loss and loss, from which backward starts.
void opt_head_loss(Graph& graph, const OptConfig& config, Value x, Value labels, Value row_weight, float smoothing);

/// A whole decoder from ids (B, T) to logits (B, T, vocab).
Value build_opt(Graph& graph, const OptConfig& config, Value input_ids, Value position_ids, Value lengths);

}  // namespace permafrost
