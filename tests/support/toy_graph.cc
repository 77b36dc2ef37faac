#include "tests/support/toy_graph.h"

#include <cmath>

#include "core/graph/ops/attention.h"
#include "core/graph/ops/cross_entropy.h"
#include "core/graph/ops/embedding.h"
#include "core/graph/ops/layer_norm.h"
#include "core/graph/ops/linear.h"
#include "core/graph/ops/shape_ops.h"

namespace permafrost::testing {

namespace {

Value block(Graph& g, Value x, const ToyConfig& c, int i) {
  const std::string name = concat("blocks.", i);
  const auto scope = g.unit(name);
  const auto param = [&](const char* part, const Shape& shape) {
    return g.param(name + "." + part, shape, shape.rank() > 1 ? Initializer::normal(0.2f) : Initializer::normal(0.1f));
  };
  AttentionConfig attention_config;
  attention_config.heads = c.heads;
  attention_config.scale = 1.0f / std::sqrt(static_cast<float>(c.width / c.heads));
  attention_config.mask = MaskKind::kCausal;
  Value h = layer_norm(g, x, param("norm1.weight", {c.width}), param("norm1.bias", {c.width}), 1e-5f);
  h = linear(g, h, param("qkv.weight", {3 * c.width, c.width}), param("qkv.bias", {3 * c.width}));
  h = attention_fused(g, h, attention_config);
  h = linear(g, h, param("proj.weight", {c.width, c.width}), param("proj.bias", {c.width}));
  x = add(g, x, h);
  h = layer_norm(g, x, param("norm2.weight", {c.width}), param("norm2.bias", {c.width}), 1e-5f);
  h = linear(g, h, param("fc1.weight", {c.hidden, c.width}), param("fc1.bias", {c.hidden}),
             i % 2 ? Activation::kGelu : c.even_blocks);
  h = linear(g, h, param("fc2.weight", {c.width, c.hidden}), param("fc2.bias", {c.width}));
  return g.name(add(g, x, h), "out");
}

}  // namespace

Graph toy_transformer(const ToyConfig& c) {
  Graph g(c.compute);
  const Value ids = g.input("ids", {{c.batch, c.tokens}, DType::kI32});
  const Value labels = g.input("labels", {{c.batch, c.tokens}, DType::kI32});
  const Value row_weight = g.input("row_weight", {{c.batch, c.tokens}, DType::kF32});
  Value x;
  {
    const auto scope = g.unit("embed");
    x = g.name(embedding(g, ids, g.param("embed.weight", {c.vocab, c.width}, Initializer::normal(0.5f))), "out");
  }
  for (int i = 0; i < c.blocks; ++i) x = block(g, x, c, i);
  const auto scope = g.unit("head");
  x = layer_norm(g, x, g.param("norm.weight", {c.width}, Initializer::ones()),
                 g.param("norm.bias", {c.width}, Initializer::zeros()), 1e-5f);
  const Param tied = g.param("embed.weight", {c.vocab, c.width}, Initializer::normal(0.5f));
  const Value logits = g.name(linear(g, x, tied, {}, Activation::kNone, true), "logits");
  const CrossEntropyValues ce = cross_entropy(g, logits, labels, row_weight, 0.1f);
  g.name(ce.loss, "loss");
  g.set_loss(ce.loss);
  return g;
}

}  // namespace permafrost::testing
