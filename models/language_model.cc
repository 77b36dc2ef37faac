#include "models/language_model.h"

#include <algorithm>

#include "core/graph/ops/shape_ops.h"
#include "models/blocks/loss.h"

namespace permafrost {

void LanguageModelConfig::check() const {
  text.check();
  check_label_smoothing("language_model", label_smoothing);
}

Graph build_language_model(const LanguageModelConfig& config, DType compute, const ModelShape& shape) {
  config.check();
  Graph graph(compute);
  const int64_t batch = shape.batch, tokens = shape.tokens, rows = shape.all_values ? tokens : tokens - 1;
  const Value ids = graph.input("input_ids", {{batch, tokens}, DType::kI32});
  const Value positions = graph.input("position_ids", {{batch, tokens}, DType::kI32});
  OptLayerOptions options;
  options.lengths = graph.input("lengths", {{batch}, DType::kI32});
  const Value labels = graph.input("labels", {{batch, rows}, DType::kI32});
  const Value row_weight = graph.input("row_weight", {{batch, rows}, DType::kF32});
  Value x = graph.name(opt_embed(graph, config.text, ids, positions), "text.embed.out");
  for (int64_t i = 0; i < config.text.layers; ++i) x = opt_layer(graph, config.text, i, x, options);
  if (!shape.all_values) {
    auto unit = graph.unit("text.rows");
    x = slice_tokens(graph, x, 0, rows);
  }
  const Value logits = opt_head(graph, config.text, opt_final(graph, config.text, x));
  add_loss(graph, logits, labels, row_weight, config.label_smoothing);
  return graph;
}

LanguageModel::LanguageModel(const LanguageModelConfig& config) : config_(config) { config_.check(); }

Graph LanguageModel::build(DType compute, const ModelShape& shape) const {
  return build_language_model(config_, compute, shape);
}

void LanguageModel::fill(const ModelBatch& batch, const InputTensors& inputs) const {
  constexpr std::string_view kWho = "language_model inputs";
  const Tensor ids = inputs("input_ids"), positions = inputs("position_ids"), lengths = inputs("lengths"),
               labels = inputs("labels"), weights = inputs("row_weight");
  check_text_inputs(kWho, batch.text, {ids, positions, labels, weights}, 0);
  check_input(kWho, "lengths", lengths, {{ids.dim(0)}, DType::kI32});
  fill_ids(batch.text, batch.pad_id, ids);
  fill_position_ids(batch.text.lengths, positions);
  std::ranges::copy(batch.text.lengths, lengths.data<int32_t>());
  fill_labels(batch.text, batch.row_weight, 0, labels, weights);
}

}  // namespace permafrost
