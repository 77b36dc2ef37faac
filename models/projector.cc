#include "models/projector.h"

#include "core/graph/ops/shape_ops.h"
#include "models/blocks/loss.h"
#include "models/blocks/named_layers.h"

namespace permafrost {

namespace {

/// (B, N, d): the patch tokens behind the last block's final norm, projected.
Value project_patches(Graph& graph, const ProjectorConfig& config, Value images) {
  VitOptions options;
  options.all_tokens = true;
  const Value tokens = build_vit(graph, config.vision, images, options).norm;
  const int64_t width = config.text.hidden;
  const bool mlp = config.kind == ProjectorConfig::Kind::kMlp;
  const Initializer start = torch_default(config.vision.dim);
  auto unit = graph.unit("projector");
  Value x = slice_tokens(graph, tokens, 1, config.vision.tokens());
  x = named_linear(graph, x, "projector.0", width, start, start, mlp ? Activation::kGelu : Activation::kNone);
  if (mlp) x = named_linear(graph, x, "projector.2", width, torch_default(width), torch_default(width));
  return graph.name(x, "out");
}

}  // namespace

void ProjectorConfig::check() const {
  vision.check();
  text.check();
  if (image_tokens() >= text.max_positions)
    fail(ErrorKind::kConfig, "projector: the ", image_tokens(), " patches of an image must leave room for a text in ",
         text.max_positions, " positions; got none");
  check_label_smoothing("projector", label_smoothing);
}

Graph build_projector(const ProjectorConfig& config, DType compute, const ModelShape& shape) {
  config.check();
  Graph graph(compute);
  const int64_t size = config.vision.image_size;
  const Value images = graph.input("images", {{shape.batch, config.vision.channels, size, size}, DType::kF32});
  const LanguageModelConfig text{config.text, config.label_smoothing, {}};
  add_language_model(graph, text, shape, project_patches(graph, config, images));
  return graph;
}

ProjectorModel::ProjectorModel(const ProjectorConfig& config) : config_(config) { config_.check(); }

Graph ProjectorModel::build(DType compute, const ModelShape& shape) const {
  return build_projector(config_, compute, shape);
}

void ProjectorModel::fill(const ModelBatch& batch, const InputTensors& inputs) const {
  constexpr std::string_view kWho = "projector inputs";
  fill_images(kWho, batch, inputs("images"));
  fill_language_model(kWho, batch, inputs, config_.image_tokens());
}

}  // namespace permafrost
