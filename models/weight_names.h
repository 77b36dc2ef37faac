#pragma once
#include <vector>

#include "core/graph/graph.h"
#include "core/weights/match.h"

namespace permafrost {

/// What a file of published weights must hold for a model, and how its names may differ from ours: for
/// match_parameters.
struct PartWeights {
  std::vector<int> params;               ///< of the graph, in its order
  std::vector<RequiredTensor> required;  ///< one for each, under its name in files
  MatchRules rules;
};

/// Parameters `vision.X`, which timm's files call X. A model without a head does not use `head.*` and what else belongs
/// to a classifier; a classifier must have its own.
PartWeights vision_weights(const Graph& graph);

/// Parameters `text.X`, which Hugging Face's files call X, with or without a leading `model.` or `model.decoder.`; a
/// stored lm_head.weight must equal the embedding.
PartWeights text_weights(const Graph& graph);

/// Everything else, and whatever of the above is trainable, under its own name. Released checkpoints with adapters
/// repeat each tensor under `transformer.`, which is not used.
PartWeights adapter_weights(const Graph& graph, const std::vector<bool>& trainable);

}  // namespace permafrost
