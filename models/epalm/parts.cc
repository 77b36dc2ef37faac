#include "models/epalm/parts.h"

#include "core/graph/ops/reshape.h"
#include "core/graph/ops/shape_ops.h"
#include "models/blocks/named_layers.h"
#include "models/opt_adaptor.h"

namespace permafrost {

namespace {

/// (P, word_embed_proj_dim)
Value prompt_vectors(Graph& graph, const EpalmConfig& config) {
  const std::string name = "prompt_module.prefix_embedding.";
  const int64_t width = config.text.word_embed_proj_dim;
  const Initializer start = torch_default(width);
  const Shape shape{config.prompt_length, width};
  Value x = param_value(graph, graph.param(name + "0.weight", shape, Initializer::normal(1)));
  if (config.prompt == EpalmConfig::Prompt::kTable) return x;
  x = named_linear(graph, x, name + "1", width, start, start, Activation::kTanh);
  return named_linear(graph, x, name + "3", width, start, start);
}

}  // namespace

std::vector<Value> epalm_vis(Graph& graph, const EpalmConfig& config, Value images, bool all_tokens) {
  VitOptions options;
  for (int64_t j = 0; j < config.features; ++j) options.features.push_back(config.vision.depth - config.features + j);
  options.all_tokens = all_tokens;
  const std::vector<Value> features = build_vit(graph, config.vision, images, options).features;
  const Initializer start = torch_default(config.vision.dim);
  const int64_t batch = graph.spec(images).shape[0];
  std::vector<Value> connected, vis;
  {
    auto unit = graph.unit("connector");
    for (size_t j = 0; j < features.size(); ++j) {
      const std::string name = concat("connector.", config.shared_connector ? 0 : j);
      connected.push_back(named_linear(graph, features[j], name, config.text.hidden, start, start));
      vis.push_back(reshape(graph, connected[j], {batch, 1, config.text.hidden}));
    }
  }
  for (size_t j = 0; j < connected.size(); ++j) graph.name(connected[j], concat("connected.", j));
  return vis;
}

Value epalm_embed(Graph& graph, const EpalmConfig& config, Value input_ids, Value position_ids) {
  Value x = opt_embed(graph, config.text, input_ids, position_ids);
  if (config.prompt != EpalmConfig::Prompt::kNone) {
    // A unit of its own, so that embedding the text stays a frozen unit with nothing trainable upstream.
    auto unit = graph.unit("prompt");
    const Value prompt = graph.name(prompt_vectors(graph, config), "out");
    const Value projected = opt_project_in(graph, config.text, prompt);
    x = concat_tokens(graph, {broadcast(graph, projected, graph.spec(input_ids).shape[0]), x});
  }
  return graph.name(x, "text.embed.out");
}

void add_vis(Graph& graph, const EpalmConfig& config, int64_t layer, const std::vector<Value>& vis,
             OptLayerOptions& options) {
  const auto feature = config.feature_of_layer(layer);
  if (!feature) return;
  options.before = [&graph, value = vis[static_cast<size_t>(*feature)], first = layer == config.start](Value x) {
    return first ? concat_tokens(graph, {value, x}) : overwrite_token(graph, x, value, 0);
  };
}

OptLayerOptions epalm_layer_options(Graph& graph, const EpalmConfig& config, int64_t layer, const EpalmLengths& lengths,
                                    const std::vector<Value>& vis) {
  OptLayerOptions options;
  options.lengths = layer < config.start ? lengths.before : lengths.after;
  if (layer >= config.start && config.vis_row == EpalmConfig::VisRow::kPublished) {
    options.mask = MaskKind::kCausalOpenFirst;
    options.open_lengths = lengths.open;
  }
  add_adapter(graph, config.adaptor, layer, options);
  add_vis(graph, config, layer, vis, options);
  return options;
}

}  // namespace permafrost
