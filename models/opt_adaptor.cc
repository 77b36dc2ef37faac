#include "models/opt_adaptor.h"

#include "core/base/check.h"

namespace permafrost {

void add_adapter(Graph& graph, const std::optional<AdaptorConfig>& adaptor, int64_t layer, OptLayerOptions& options) {
  if (!adaptor) return;
  const bool on_mlp = adaptor->location == AdaptorLocation::kMlp;
  const bool in_sequence = on_mlp && adaptor->kind == AdaptorKind::kNormal;  // Sequential(fc2, adapter)
  const std::string name =
      concat("model_text.model.decoder.layers.", layer, on_mlp ? ".fc2" : ".self_attn", in_sequence ? ".1" : "");
  auto hook = [&graph, name, config = *adaptor](Value input, Value output) {
    auto unit = graph.unit("adapter");  // a unit is all frozen or all trainable
    return adapt(graph, input, output, name, config);
  };
  (on_mlp ? options.after_ffn : options.after_attention) = hook;
}

}  // namespace permafrost
