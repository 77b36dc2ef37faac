#include "models/opt.h"

#include <cmath>

#include "core/base/narrow.h"
#include "core/graph/ops/dropout.h"
#include "core/graph/ops/embedding.h"
#include "core/graph/ops/head_loss.h"
#include "core/graph/ops/joined_linear.h"
#include "core/graph/ops/linear.h"
#include "core/graph/ops/shape_ops.h"
#include "models/blocks/loss.h"
#include "models/blocks/named_layers.h"

namespace permafrost {

namespace {

const std::string kDecoder = "text.model.decoder.";

OptConfig pre_norm(int64_t layers, int64_t hidden, int64_t heads) {
  OptConfig c;
  c.layers = layers;
  c.hidden = hidden;
  c.heads = heads;
  c.ffn = 4 * hidden;
  c.word_embed_proj_dim = hidden;
  return c;
}

Param token_table(Graph& graph, const OptConfig& c) {
  return graph.param(kDecoder + "embed_tokens.weight", {c.vocab, c.word_embed_proj_dim}, kTransformerWeight);
}

/// Dropout uses of a decoder: 0 the embeddings, then two per layer.
Value maybe_dropout(Graph& graph, const OptConfig& c, Value x, Value address, int64_t use) {
  if (address.index < 0) return x;
  return dropout(graph, x, address, narrow<uint32_t>(use), c.dropout);
}

Value self_attention(Graph& graph, const OptConfig& c, const std::string& name, Value x,
                     const OptLayerOptions& options) {
  AttentionConfig config;
  config.heads = c.heads;
  config.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.hidden / c.heads)));
  config.mask = options.mask;
  config.lengths = options.lengths;
  config.open_lengths = options.open_lengths;
  // Declared in this order, so that the plan puts the weights together: see joined_linear.h.
  const auto each = [&](const char* what, const Shape& shape, const Initializer& initializer) {
    std::vector<Param> params;
    for (const char* part : {"q", "k", "v"})
      params.push_back(graph.param(concat(name, "self_attn.", part, "_proj.", what), shape, initializer));
    return params;
  };
  const std::vector<Param> weights = each("weight", {c.hidden, c.hidden}, kTransformerWeight),
                           biases = each("bias", {c.hidden}, kTransformerBias);
  const auto product = [&](size_t part) { return linear(graph, x, weights[part], biases[part]); };
  Value mixed;
  if (options.attend) {
    const Value q = product(0), k = product(1), v = product(2);
    mixed = options.attend(q, k, v, config);
  } else {
    mixed = attention_fused(graph, joined_linear(graph, x, weights, biases), config);
  }
  return named_linear(graph, mixed, name + "self_attn.out_proj", c.hidden, kTransformerWeight, kTransformerBias);
}

Value feed_forward(Graph& graph, const OptConfig& c, const std::string& name, Value x) {
  const Value hidden =
      named_linear(graph, x, name + "fc1", c.ffn, kTransformerWeight, kTransformerBias, Activation::kRelu);
  return named_linear(graph, hidden, name + "fc2", c.hidden, kTransformerWeight, kTransformerBias);
}

}  // namespace

OptConfig OptConfig::of(OptSize size) {
  switch (size) {
    case OptSize::k125M:
      return pre_norm(12, 768, 12);
    case OptSize::k350M: {
      OptConfig c = pre_norm(24, 1024, 16);
      c.word_embed_proj_dim = 512;
      c.norm_before = c.final_norm = false;
      return c;
    }
    case OptSize::k1_3B:
      return pre_norm(24, 2048, 32);
    case OptSize::k2_7B:
      return pre_norm(32, 2560, 32);
    case OptSize::k6_7B:
      return pre_norm(32, 4096, 32);
  }
  fail(ErrorKind::kInternal, "OptConfig::of: unknown size ", static_cast<int>(size));
}

void OptConfig::check() const {
  const auto positive = [](std::string_view field, int64_t value) {
    if (value < 1) fail(ErrorKind::kConfig, "opt: ", field, " must be 1 and up; got ", value);
  };
  positive("vocab", vocab);
  positive("layers", layers);
  positive("hidden", hidden);
  positive("heads", heads);
  positive("ffn", ffn);
  positive("word_embed_proj_dim", word_embed_proj_dim);
  positive("max_positions", max_positions);
  if (hidden % heads != 0)
    fail(ErrorKind::kConfig, "opt: hidden must be a multiple of heads = ", heads, "; got ", hidden);
  if (!(dropout >= 0.0f && dropout < 1.0f))
    fail(ErrorKind::kConfig, "opt: dropout must be 0 to below 1; got ", dropout);
}

Value opt_embed(Graph& graph, const OptConfig& config, Value input_ids, Value position_ids, Value front) {
  auto unit = graph.unit("text.embed");
  const bool has_front = front.index >= 0;
  const int64_t slots = has_front ? graph.spec(front).shape[1] : 0;
  const TensorSpec ids = graph.spec(input_ids), positioned = graph.spec(position_ids);
  if (ids.shape.rank() != 2 || !(positioned == TensorSpec{{ids.shape[0], slots + ids.shape[1]}, ids.dtype}))
    fail(ErrorKind::kShapeMismatch, "opt: input_ids and position_ids must be (B, T) i32",
         has_front ? ", the latter (B, " : "", has_front ? concat(slots, " + T)") : "", "; got ", ids, " and ",
         positioned);
  if (positioned.shape[1] > config.max_positions)
    fail(ErrorKind::kConfig, "opt: a text must fit ", config.max_positions, " positions; got ", positioned.shape[1],
         " tokens", has_front ? concat(", ", slots, " of them before the text") : "");
  Value tokens = opt_project_in(graph, config, embedding(graph, input_ids, token_table(graph, config)));
  if (has_front) tokens = concat_tokens(graph, {front, tokens});
  const Param positions =
      graph.param(kDecoder + "embed_positions.weight", {config.position_rows(), config.hidden}, kTransformerWeight);
  return add(graph, tokens, embedding(graph, position_ids, positions));
}

Value opt_project_in(Graph& graph, const OptConfig& config, Value x) {
  if (!config.has_projections()) return x;
  return named_projection(graph, x, kDecoder + "project_in", config.hidden, kTransformerWeight);
}

Value opt_embedding_dropout(Graph& graph, const OptConfig& config, Value x, Value address) {
  return maybe_dropout(graph, config, x, address, 0);
}

Value opt_layer(Graph& graph, const OptConfig& config, int64_t layer, Value x, const OptLayerOptions& options) {
  auto unit = graph.unit(concat("text.layers.", layer));
  const std::string name = concat(kDecoder, "layers.", layer, ".");
  const auto norm = [&](Value v, const char* which) { return named_layer_norm(graph, v, name + which, config.eps); };

  if (options.before) x = options.before(x);
  Value read = config.norm_before ? norm(x, "self_attn_layer_norm") : x;
  Value part = self_attention(graph, config, name, read, options);
  if (options.after_attention) part = options.after_attention(read, part);
  x = add(graph, x, maybe_dropout(graph, config, part, options.dropout_address, 1 + 2 * layer));
  if (!config.norm_before) x = norm(x, "self_attn_layer_norm");

  read = config.norm_before ? norm(x, "final_layer_norm") : x;
  part = feed_forward(graph, config, name, read);
  if (options.after_ffn) part = options.after_ffn(read, part);
  x = add(graph, x, maybe_dropout(graph, config, part, options.dropout_address, 2 + 2 * layer));
  if (!config.norm_before) x = norm(x, "final_layer_norm");
  return graph.name(x, "out");
}

Value opt_final(Graph& graph, const OptConfig& config, Value x) {
  if (!config.final_norm && !config.has_projections()) return x;
  auto unit = graph.unit("text.final");
  if (config.final_norm) x = named_layer_norm(graph, x, kDecoder + "final_layer_norm", config.eps);
  if (config.has_projections())
    x = named_projection(graph, x, kDecoder + "project_out", config.word_embed_proj_dim, kTransformerWeight);
  return graph.name(x, "out");
}

Value opt_head(Graph& graph, const OptConfig& config, Value x) {
  Value logits;
  {
    auto unit = graph.unit("text.head");
    logits = linear(graph, x, token_table(graph, config), {}, Activation::kNone, /*wide_output=*/true);
  }
  return graph.name(logits, "logits");
}

void opt_head_loss(Graph& graph, const OptConfig& config, Value x, Value labels, Value row_weight, float smoothing) {
  const Value scale = loss_scale_input(graph);
  CrossEntropyValues loss;
  {
    auto unit = graph.unit("text.head");
    loss = head_loss(graph, x, token_table(graph, config), labels, row_weight, smoothing, scale);
  }
  graph.name(loss.row_loss, "row_loss");
  graph.set_loss(graph.name(loss.loss, "loss"));
}

Value build_opt(Graph& graph, const OptConfig& config, Value input_ids, Value position_ids, Value lengths) {
  config.check();
  Value x = graph.name(opt_embed(graph, config, input_ids, position_ids), "text.embed.out");
  OptLayerOptions options;
  options.lengths = lengths;
  for (int64_t i = 0; i < config.layers; ++i) x = opt_layer(graph, config, i, x, options);
  return opt_head(graph, config, opt_final(graph, config, x));
}

}  // namespace permafrost
