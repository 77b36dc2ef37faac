#include "models/blocks/named_layers.h"

#include <cmath>

#include "core/graph/ops/layer_norm.h"
#include "core/graph/ops/linear.h"

namespace permafrost {

Value named_linear(Graph& graph, Value x, const std::string& name, int64_t width, const Initializer& weight,
                   const Initializer& bias, Activation activation) {
  const int64_t k = graph.spec(x).shape[-1];
  const Param w = graph.param(name + ".weight", {width, k}, weight);
  const Param b = graph.param(name + ".bias", {width}, bias);
  return linear(graph, x, w, b, activation);
}

Value named_projection(Graph& graph, Value x, const std::string& name, int64_t width, const Initializer& weight) {
  return linear(graph, x, graph.param(name + ".weight", {width, graph.spec(x).shape[-1]}, weight));
}

Value named_layer_norm(Graph& graph, Value x, const std::string& name, float eps) {
  const int64_t width = graph.spec(x).shape[-1];
  const Param gain = graph.param(name + ".weight", {width}, Initializer::ones());
  const Param bias = graph.param(name + ".bias", {width}, Initializer::zeros());
  return layer_norm(graph, x, gain, bias, eps);
}

Initializer torch_default(int64_t fan_in) {
  return Initializer::uniform(static_cast<float>(1.0 / std::sqrt(static_cast<double>(fan_in))));
}

}  // namespace permafrost
