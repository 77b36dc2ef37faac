#include "models/weight_names.h"

namespace permafrost {

namespace {

constexpr std::string_view kVision = "vision.", kText = "text.";

/// All parameters with the prefix, which files do not have.
PartWeights part_of(const Graph& graph, std::string_view prefix) {
  PartWeights part;
  for (size_t p = 0; p < graph.params().size(); ++p) {
    const ParamInfo& info = graph.params()[p];
    if (!info.name.starts_with(prefix)) continue;
    part.params.push_back(static_cast<int>(p));
    part.required.push_back({info.name.substr(prefix.size()), info.shape});
  }
  return part;
}

}  // namespace

PartWeights vision_weights(const Graph& graph) {
  PartWeights part = part_of(graph, kVision);
  part.rules.known_unused = {"head_dist.*", "pre_logits.*"};
  if (graph.find_param("vision.head.weight") < 0) part.rules.known_unused.push_back("head.*");
  return part;
}

PartWeights text_weights(const Graph& graph) {
  PartWeights part = part_of(graph, kText);
  part.rules.optional_prefixes = {"model.", "model.decoder."};
  part.rules.tied = {{"lm_head.weight", "model.decoder.embed_tokens.weight"}};
  return part;
}

PartWeights adapter_weights(const Graph& graph, const std::vector<bool>& trainable) {
  PERMAFROST_CHECK(trainable.size() == graph.params().size(), "adapter_weights: one flag per parameter expected (",
                   graph.params().size(), "); got ", trainable.size());
  PartWeights part;
  for (size_t p = 0; p < graph.params().size(); ++p) {
    const ParamInfo& info = graph.params()[p];
    if (!trainable[p] && (info.name.starts_with(kVision) || info.name.starts_with(kText))) continue;
    part.params.push_back(static_cast<int>(p));
    part.required.push_back({info.name, info.shape});
  }
  part.rules.known_unused = {"transformer.*"};
  return part;
}

}  // namespace permafrost
