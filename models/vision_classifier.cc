#include "models/vision_classifier.h"

#include "core/graph/ops/linear.h"
#include "core/graph/ops/reshape.h"
#include "core/graph/ops/shape_ops.h"
#include "models/blocks/loss.h"
#include "models/blocks/named_layers.h"

namespace permafrost {

void VisionClassifierConfig::check() const {
  vision.check();
  if (labels < 1) fail(ErrorKind::kConfig, "vision_classifier: labels must be 1 and up; got ", labels);
  if (classes < 2) fail(ErrorKind::kConfig, "vision_classifier: classes must be 2 and up; got ", classes);
  if (supervised_blocks < 1 || supervised_blocks > vision.depth)
    fail(ErrorKind::kConfig, "vision_classifier: supervised_blocks must be 1 to the vision model's ", vision.depth,
         " blocks; got ", supervised_blocks);
  check_label_smoothing("vision_classifier", label_smoothing);
}

namespace {

/// Features of the supervised blocks, (B, D) each, the last block's last.
std::vector<Value> supervised_features(Graph& graph, const VisionClassifierConfig& config, Value images,
                                       const ModelShape& shape) {
  const VitConfig& vit = config.vision;
  VitOptions options;
  options.all_tokens = shape.all_values;
  for (int64_t j = vit.depth - config.supervised_blocks; j < vit.depth; ++j) options.features.push_back(j);
  return build_vit(graph, vit, images, options).features;
}

}  // namespace

Graph build_vision_classifier(const VisionClassifierConfig& config, DType compute, const ModelShape& shape) {
  config.check();
  Graph graph(compute);
  const VitConfig& vit = config.vision;
  const int64_t batch = shape.batch, size = vit.image_size;
  const Value images = graph.input("images", {{batch, vit.channels, size, size}, DType::kF32});
  const int64_t all_labels = config.supervised_blocks * config.labels;
  const Value labels = graph.input("labels", {{batch, all_labels}, DType::kI32});
  const Value row_weight = graph.input("row_weight", {{batch, all_labels}, DType::kF32});
  std::vector<Value> tokens = supervised_features(graph, config, images, shape);
  Value logits;
  {
    auto unit = graph.unit("vision.head");
    for (Value& token : tokens) token = reshape(graph, token, {batch, 1, vit.dim});
    const Value all_tokens = tokens.size() == 1 ? tokens[0] : concat_tokens(graph, tokens);
    const int64_t width = config.labels * config.classes;
    const Param weight = graph.param("vision.head.weight", {width, vit.dim}, kTransformerWeight);
    const Param bias = graph.param("vision.head.bias", {width}, kTransformerBias);
    logits = linear(graph, all_tokens, weight, bias, Activation::kNone, /*wide_output=*/true);
    logits = reshape(graph, logits, {batch, all_labels, config.classes});
  }
  graph.name(logits, "logits");
  add_loss(graph, logits, labels, row_weight, config.label_smoothing);
  return graph;
}

VisionClassifier::VisionClassifier(const VisionClassifierConfig& config) : config_(config) { config_.check(); }

Graph VisionClassifier::build(DType compute, const ModelShape& shape) const {
  return build_vision_classifier(config_, compute, shape);
}

void VisionClassifier::fill(const ModelBatch& batch, const InputTensors& inputs) const {
  constexpr std::string_view kWho = "vision_classifier inputs";
  fill_images(kWho, batch, inputs("images"));
  const Tensor labels = inputs("labels"), weights = inputs("row_weight");
  const int64_t rows = inputs("images").dim(0), blocks = config_.supervised_blocks;
  const TensorSpec spec{{rows, blocks * config_.labels}, DType::kI32};
  check_input(kWho, "labels", labels, spec);
  check_input(kWho, "row_weight", weights, {spec.shape, DType::kF32});
  PERMAFROST_CHECK(std::ssize(batch.classes) == rows * config_.labels, kWho, ": classes must be ",
                   Shape({rows, config_.labels}), "; got ", batch.classes.size(), " of them");
  for (int64_t i = 0; i < rows * config_.labels; ++i) {
    const int32_t wanted = batch.classes[static_cast<size_t>(i)];
    if (wanted != kIgnoredLabel && (wanted < 0 || wanted >= config_.classes))
      fail(ErrorKind::kData, kWho, ": classes must be 0 to ", config_.classes - 1, ", or ", kIgnoredLabel,
           " for none; got ", wanted, " as label ", i % config_.labels, " of sample ",
           batch.sample_ids.empty() ? static_cast<uint64_t>(i / config_.labels)
                                    : batch.sample_ids[static_cast<size_t>(i / config_.labels)]);
    const int64_t row = i / config_.labels, label = i % config_.labels;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t at = (row * blocks + block) * config_.labels + label;
      labels.data<int32_t>()[at] = wanted;
      weights.data<float>()[at] = wanted == kIgnoredLabel ? 0.0f : batch.row_weight / static_cast<float>(blocks);
    }
  }
}

}  // namespace permafrost
