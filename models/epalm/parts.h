#pragma once
#include <vector>

#include "models/epalm/epalm.h"

namespace permafrost {

/// Parts that the graphs of training and of generation have in common. Units, parameters and value names are those that
/// build_epalm documents.

/// Vision and connectors: what is written into the text layers, per feature (B, 1, d). images: (B, C, S, S) f32.
std::vector<Value> epalm_vis(Graph& graph, const EpalmConfig& config, Value images, bool all_tokens);

/// Token embeddings behind the soft prompts, where there are any: (B, P + T, d); value text.embed.out. Without the
/// published dropout.
Value epalm_embed(Graph& graph, const EpalmConfig& config, Value input_ids, Value position_ids);

/// VIS before a text layer, as a hook of the layer: in front of the text before the first layer of the window, over its
/// slot before the others. vis: per feature (B, 1, d).
void add_vis(Graph& graph, const EpalmConfig& config, int64_t layer, const std::vector<Value>& vis,
             OptLayerOptions& options);

/// Valid keys of the text layers, (B) i32 each: in layers without and with VIS, and of the published VIS row.
struct EpalmLengths {
  Value before, after;
  Value open;  ///< not looked at with vis_row kCausal
};

/// What a text layer is told when it computes right-padded texts whole: keys and mask, VIS, adapter.
OptLayerOptions epalm_layer_options(Graph& graph, const EpalmConfig& config, int64_t layer, const EpalmLengths& lengths,
                                    const std::vector<Value>& vis);

}  // namespace permafrost
