#include "models/vit.h"

#include <algorithm>
#include <cmath>

#include "core/graph/ops/attention.h"
#include "core/graph/ops/linear.h"
#include "core/graph/ops/patchify.h"
#include "core/graph/ops/reshape.h"
#include "core/graph/ops/shape_ops.h"
#include "models/blocks/named_layers.h"

namespace permafrost {

namespace {

void check_images(const Graph& graph, const VitConfig& c, Value images) {
  const TensorSpec& spec = graph.spec(images);
  if (spec.shape.rank() != 4 || spec.dtype != DType::kF32 || spec.shape[1] != c.channels ||
      spec.shape[2] != c.image_size || spec.shape[3] != c.image_size)
    fail(ErrorKind::kShapeMismatch, "vit: images must be (B, ", c.channels, ", ", c.image_size, ", ", c.image_size,
         ") f32; got ", spec);
}

void check_features(const VitConfig& c, const std::vector<int64_t>& features) {
  for (size_t j = 0; j < features.size(); ++j)
    if (features[j] < (j == 0 ? 0 : features[j - 1] + 1) || features[j] >= c.depth)
      fail(ErrorKind::kConfig, "vit: features must be ascending blocks of 0..", c.depth - 1, "; got ", features[j],
           " at position ", j);
}

Value embed_patches(Graph& graph, const VitConfig& c, Value images) {
  auto unit = graph.unit("vision.embed");
  const int64_t batch = graph.spec(images).shape[0], patch_values = c.channels * c.patch * c.patch;
  const Param weight =
      graph.param("vision.patch_embed.proj.weight", {c.dim, c.channels, c.patch, c.patch}, torch_default(patch_values));
  const Param bias = graph.param("vision.patch_embed.proj.bias", {c.dim}, torch_default(patch_values));
  const Value patches = linear(graph, patchify(graph, images, c.patch), weight, bias);
  const Param class_token = graph.param("vision.cls_token", {1, 1, c.dim}, Initializer::normal(1e-6f));
  const Value tokens = concat_tokens(graph, {broadcast_param(graph, class_token, batch), patches});
  const Param positions = graph.param("vision.pos_embed", {1, c.tokens(), c.dim}, kTransformerWeight);
  return graph.name(add_param(graph, tokens, positions), "out");
}

/// One pre-norm block. `class_token_only`: everything behind the attention for token 0 alone.
Value block(Graph& graph, const VitConfig& c, const std::string& name, Value x, bool class_token_only) {
  const Value read = named_layer_norm(graph, x, name + ".norm1", c.eps);
  const Value qkv = named_linear(graph, read, name + ".attn.qkv", 3 * c.dim, kTransformerWeight, kTransformerBias);
  AttentionConfig attention;
  attention.heads = c.heads;
  attention.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.dim / c.heads)));
  Value mixed = attention_fused(graph, qkv, attention);
  if (class_token_only) {
    mixed = slice_tokens(graph, mixed, 0, 1);
    x = slice_tokens(graph, x, 0, 1);
  }
  x = add(graph, x, named_linear(graph, mixed, name + ".attn.proj", c.dim, kTransformerWeight, kTransformerBias));
  const Value normed = named_layer_norm(graph, x, name + ".norm2", c.eps);
  const Value hidden = named_linear(graph, normed, name + ".mlp.fc1", c.mlp_dim, kTransformerWeight, kTransformerBias,
                                    Activation::kGelu);
  x = add(graph, x, named_linear(graph, hidden, name + ".mlp.fc2", c.dim, kTransformerWeight, kTransformerBias));
  return graph.name(x, class_token_only ? "class_token" : "out");
}

/// Token 0 of (B, T, D) as (B, D).
Value class_token(Graph& graph, Value x) {
  const Shape shape = graph.spec(x).shape;
  if (shape[1] != 1) x = slice_tokens(graph, x, 0, 1);
  return reshape(graph, x, {shape[0], shape[2]});
}

}  // namespace

VitConfig VitConfig::l16() {
  VitConfig c;
  c.dim = 1024;
  c.depth = 24;
  c.heads = 16;
  c.mlp_dim = 4096;
  return c;
}

void VitConfig::check() const {
  const auto positive = [](std::string_view field, int64_t value) {
    if (value < 1) fail(ErrorKind::kConfig, "vit: ", field, " must be 1 and up; got ", value);
  };
  positive("image_size", image_size);
  positive("channels", channels);
  positive("patch", patch);
  positive("dim", dim);
  positive("depth", depth);
  positive("heads", heads);
  positive("mlp_dim", mlp_dim);
  if (image_size % patch != 0)
    fail(ErrorKind::kConfig, "vit: image_size must be a multiple of patch = ", patch, "; got ", image_size);
  if (dim % heads != 0) fail(ErrorKind::kConfig, "vit: dim must be a multiple of heads = ", heads, "; got ", dim);
}

VitValues build_vit(Graph& graph, const VitConfig& config, Value images, const VitOptions& options) {
  config.check();
  check_images(graph, config, images);
  check_features(config, options.features);
  VitValues values;
  Value x = values.embed = embed_patches(graph, config, images);
  std::vector<Value> class_tokens;
  for (int64_t i = 0; i < config.depth; ++i) {
    const std::string name = concat("vision.blocks.", i);
    auto unit = graph.unit(name);
    x = block(graph, config, name, x, i == config.depth - 1 && !options.all_tokens);
    values.blocks.push_back(x);
    // Taken here, so that the other tokens of the block need not live until the norm below.
    if (std::ranges::find(options.features, i) != options.features.end()) class_tokens.push_back(class_token(graph, x));
  }
  {
    auto unit = graph.unit("vision.norm");
    for (Value token : class_tokens)
      values.features.push_back(named_layer_norm(graph, token, "vision.norm", config.eps));
    if (options.all_tokens) values.norm = graph.name(named_layer_norm(graph, x, "vision.norm", config.eps), "out");
  }
  for (size_t j = 0; j < values.features.size(); ++j) graph.name(values.features[j], concat("features.", j));
  return values;
}

}  // namespace permafrost
