#pragma once
#include <optional>

#include "models/adaptor.h"
#include "models/opt.h"

namespace permafrost {

/// The adaptor of text layer `layer` as a hook of the layer; nothing where there is none. Unit text.layers.{i}.adapter.
/// Parameters model_text.model.decoder.layers.{i}.{fc2.1|fc2|self_attn}.adapter.{k}.weight|bias, and with a scale
/// ….adapter_scale: the names that eP-ALM's released code saves, fc2.1 where the adaptor stands behind fc2 in sequence.
void add_adapter(Graph& graph, const std::optional<AdaptorConfig>& adaptor, int64_t layer, OptLayerOptions& options);

}  // namespace permafrost
