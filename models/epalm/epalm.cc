#include "models/epalm/epalm.h"

#include <algorithm>

#include "core/graph/ops/shape_ops.h"
#include "models/blocks/loss.h"
#include "models/epalm/parts.h"

namespace permafrost {

namespace {

/// Builds the graph part by part; the members are the values that parts hand on.
class EpalmBuilder {
 public:
  EpalmBuilder(const EpalmConfig& config, DType compute, const ModelShape& shape)
      : config_(config), shape_(shape), graph_(compute) {}

  Graph build() {
    make_inputs();
    vis_ = epalm_vis(graph_, config_, images_, shape_.all_values);
    embed_text();
    run_text();
    score();
    return std::move(graph_);
  }

 private:
  void make_inputs() {
    const int64_t b = shape_.batch, t = shape_.tokens, s = config_.vision.image_size,
                  rows = epalm_logit_rows(config_, shape_);
    images_ = graph_.input("images", {{b, config_.vision.channels, s, s}, DType::kF32});
    input_ids_ = graph_.input("input_ids", {{b, t}, DType::kI32});
    position_ids_ = graph_.input("position_ids", {{b, t}, DType::kI32});
    lengths_.before = graph_.input("lengths_before", {{b}, DType::kI32});
    lengths_.after = graph_.input("lengths_after", {{b}, DType::kI32});
    if (config_.vis_row == EpalmConfig::VisRow::kPublished)
      lengths_.open = graph_.input("open_lengths", {{b}, DType::kI32});
    labels_ = graph_.input("labels", {{b, rows}, DType::kI32});
    row_weight_ = graph_.input("row_weight", {{b, rows}, DType::kF32});
    if (config_.frozen_dropout) address_ = graph_.input("random_address", {{2 + b}, DType::kI64});
  }

  void embed_text() {
    x_ = epalm_embed(graph_, config_, input_ids_, position_ids_);
    if (!config_.frozen_dropout) return;
    auto unit = graph_.unit("text.embed_dropout");
    x_ = opt_embedding_dropout(graph_, config_.text, x_, address_);
  }

  void run_text() {
    for (int64_t layer = 0; layer < config_.text.layers; ++layer) {
      OptLayerOptions options = epalm_layer_options(graph_, config_, layer, lengths_, vis_);
      options.dropout_address = address_;
      x_ = opt_layer(graph_, config_.text, layer, x_, options);
    }
  }

  void score() {
    if (!shape_.all_values) {
      auto unit = graph_.unit("text.rows");
      x_ = slice_tokens(graph_, x_, config_.slots(), config_.slots() + shape_.tokens - 1);
    }
    x_ = opt_final(graph_, config_.text, x_);
    if (shape_.all_values)
      add_loss(graph_, opt_head(graph_, config_.text, x_), labels_, row_weight_, config_.label_smoothing);
    else
      opt_head_loss(graph_, config_.text, x_, labels_, row_weight_, config_.label_smoothing);
  }

  const EpalmConfig& config_;
  const ModelShape& shape_;
  Graph graph_;
  Value images_, input_ids_, position_ids_, labels_, row_weight_, address_;
  EpalmLengths lengths_;
  std::vector<Value> vis_;
  Value x_;
};

}  // namespace

std::optional<int64_t> EpalmConfig::feature_of_layer(int64_t layer) const {
  if (layer < start || layer >= end) return std::nullopt;
  const int64_t window = end - start;
  const int64_t step = features > 1 && window > features ? window / features : 1;
  return std::min((layer - start) / step, features - 1);
}

void EpalmConfig::check() const {
  vision.check();
  text.check();
  if (features < 1 || features > vision.depth)
    fail(ErrorKind::kConfig, "epalm: features must be 1 to the vision model's ", vision.depth, " blocks; got ",
         features);
  if (start < 0 || start >= end || end > text.layers)
    fail(ErrorKind::kConfig, "epalm: the window must lie in the ", text.layers, " text layers, 0 <= start < end; got ",
         start, " to ", end);
  if (prompt != Prompt::kNone && prompt_length < 1)
    fail(ErrorKind::kConfig, "epalm: prompt_length must be 1 and up; got ", prompt_length);
  if (frozen_dropout && text.dropout == 0.0f)
    fail(ErrorKind::kConfig, "epalm: frozen_dropout needs a dropout above 0 in the text model; got 0");
  check_label_smoothing("epalm", label_smoothing);
}

int64_t epalm_logit_rows(const EpalmConfig& config, const ModelShape& shape) {
  return shape.all_values ? config.slots() + shape.tokens : shape.tokens - 1;
}

Graph build_epalm(const EpalmConfig& config, DType compute, const ModelShape& shape) {
  config.check();
  if (shape.batch < 1 || shape.tokens < 1)
    fail(ErrorKind::kConfig, "epalm: a micro-batch must have samples and tokens; got (", shape.batch, ", ",
         shape.tokens, ")");
  return EpalmBuilder(config, compute, shape).build();
}

std::vector<FreezeRule> epalm_freezing(const EpalmConfig& config) {
  std::vector<FreezeRule> rules{{"connector.*", true}};
  if (config.prompt != EpalmConfig::Prompt::kNone) rules.push_back({"prompt_module.*", true});
  if (config.adaptor) rules.push_back({"model_text.*", true});
  return rules;
}

}  // namespace permafrost
