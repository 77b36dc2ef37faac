#include "models/vision_classifier.h"

#include "core/graph/ops/linear.h"
#include "core/graph/ops/reshape.h"
#include "models/blocks/loss.h"
#include "models/blocks/named_layers.h"

namespace permafrost {

void VisionClassifierConfig::check() const {
  vision.check();
  if (labels < 1) fail(ErrorKind::kConfig, "vision_classifier: labels must be 1 and up; got ", labels);
  if (classes < 2) fail(ErrorKind::kConfig, "vision_classifier: classes must be 2 and up; got ", classes);
  check_label_smoothing("vision_classifier", label_smoothing);
}

Graph build_vision_classifier(const VisionClassifierConfig& config, DType compute, const ModelShape& shape) {
  config.check();
  Graph graph(compute);
  const VitConfig& vit = config.vision;
  const int64_t batch = shape.batch, size = vit.image_size;
  const Value images = graph.input("images", {{batch, vit.channels, size, size}, DType::kF32});
  const Value labels = graph.input("labels", {{batch, config.labels}, DType::kI32});
  const Value row_weight = graph.input("row_weight", {{batch, config.labels}, DType::kF32});
  const Value feature = build_vit(graph, vit, images, {{vit.depth - 1}, shape.all_values}).features[0];
  Value logits;
  {
    auto unit = graph.unit("vision.head");
    const int64_t width = config.labels * config.classes;
    const Param weight = graph.param("vision.head.weight", {width, vit.dim}, kTransformerWeight);
    const Param bias = graph.param("vision.head.bias", {width}, kTransformerBias);
    logits = linear(graph, feature, weight, bias, Activation::kNone, /*wide_output=*/true);
    logits = reshape(graph, logits, {batch, config.labels, config.classes});
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
  const TensorSpec spec{{inputs("images").dim(0), config_.labels}, DType::kI32};
  check_input(kWho, "labels", labels, spec);
  check_input(kWho, "row_weight", weights, {spec.shape, DType::kF32});
  PERMAFROST_CHECK(std::ssize(batch.classes) == labels.elements(), kWho, ": classes must be ", spec.shape, "; got ",
                   batch.classes.size(), " of them");
  for (int64_t i = 0; i < labels.elements(); ++i) {
    const int32_t wanted = batch.classes[static_cast<size_t>(i)];
    if (wanted != kIgnoredLabel && (wanted < 0 || wanted >= config_.classes))
      fail(ErrorKind::kData, kWho, ": classes must be 0 to ", config_.classes - 1, ", or ", kIgnoredLabel,
           " for none; got ", wanted, " as label ", i % config_.labels, " of sample ",
           batch.sample_ids.empty() ? static_cast<uint64_t>(i / config_.labels)
                                    : batch.sample_ids[static_cast<size_t>(i / config_.labels)]);
    labels.data<int32_t>()[i] = wanted;
    weights.data<float>()[i] = wanted == kIgnoredLabel ? 0.0f : batch.row_weight;
  }
}

}  // namespace permafrost
