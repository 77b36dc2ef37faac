#include "models/language_model.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "core/graph/ops/shape_ops.h"
#include "models/blocks/loss.h"
#include "models/opt_adaptor.h"

namespace permafrost {

void LanguageModelConfig::check() const {
  text.check();
  check_label_smoothing("language_model", label_smoothing);
}

void add_language_model(Graph& graph, const LanguageModelConfig& config, const ModelShape& shape, Value front) {
  const int64_t batch = shape.batch, tokens = shape.tokens;
  const int64_t slots = front.index < 0 ? 0 : graph.spec(front).shape[1];
  const int64_t rows = shape.all_values ? slots + tokens : tokens - 1;
  const Value ids = graph.input("input_ids", {{batch, tokens}, DType::kI32});
  const Value positions = graph.input("position_ids", {{batch, slots + tokens}, DType::kI32});
  const Value lengths = graph.input("lengths", {{batch}, DType::kI32});
  const Value labels = graph.input("labels", {{batch, rows}, DType::kI32});
  const Value row_weight = graph.input("row_weight", {{batch, rows}, DType::kF32});
  Value x = graph.name(opt_embed(graph, config.text, ids, positions, front), "text.embed.out");
  for (int64_t i = 0; i < config.text.layers; ++i) {
    OptLayerOptions options;
    options.lengths = lengths;
    add_adapter(graph, config.adaptor, i, options);
    x = opt_layer(graph, config.text, i, x, options);
  }
  if (!shape.all_values) {
    auto unit = graph.unit("text.rows");
    x = slice_tokens(graph, x, slots, slots + rows);
  }
  const Value logits = opt_head(graph, config.text, opt_final(graph, config.text, x));
  add_loss(graph, logits, labels, row_weight, config.label_smoothing);
}

void fill_language_model(std::string_view who, const ModelBatch& batch, const InputTensors& inputs, int64_t slots) {
  const Tensor ids = inputs("input_ids"), positions = inputs("position_ids"), lengths = inputs("lengths"),
               labels = inputs("labels"), weights = inputs("row_weight");
  check_text_inputs(who, batch.text, {ids, positions, labels, weights}, slots, slots);
  check_input(who, "lengths", lengths, {{ids.dim(0)}, DType::kI32});
  fill_ids(batch.text, batch.pad_id, ids);
  fill_position_ids(batch.text.lengths, positions, slots);
  std::ranges::transform(batch.text.lengths, lengths.data<int32_t>(),
                         [slots](int32_t length) { return narrow<int32_t>(slots + length); });
  const bool all_rows = labels.dim(1) == slots + ids.dim(1);
  fill_labels(batch.text, batch.row_weight, all_rows ? slots : 0, labels, weights);
}

Graph build_language_model(const LanguageModelConfig& config, DType compute, const ModelShape& shape) {
  config.check();
  Graph graph(compute);
  add_language_model(graph, config, shape);
  return graph;
}

LanguageModel::LanguageModel(const LanguageModelConfig& config) : config_(config) { config_.check(); }

Graph LanguageModel::build(DType compute, const ModelShape& shape) const {
  return build_language_model(config_, compute, shape);
}

void LanguageModel::fill(const ModelBatch& batch, const InputTensors& inputs) const {
  fill_language_model("language_model inputs", batch, inputs, 0);
}

}  // namespace permafrost
