#include "models/adaptor.h"

#include "core/graph/ops/shape_ops.h"
#include "models/blocks/named_layers.h"

namespace permafrost {

Value bottleneck(Graph& graph, Value x, const std::string& name, const AdaptorConfig& config) {
  constexpr Initializer kSmall = Initializer::normal(1e-3f, 2e-3f);
  const int64_t width = graph.spec(x).shape[-1];
  if (config.factor < 1 || width / config.factor < 1)
    fail(ErrorKind::kConfig, "adaptor: factor must be 1 to the width ", width, "; got ", config.factor,
         " [param=", name, "]");
  int k = 0;
  if (config.layer_norm) x = named_layer_norm(graph, x, concat(name, ".adapter.", k++), 1e-5f);
  x = named_linear(graph, x, concat(name, ".adapter.", k), width / config.factor, kSmall, kSmall, Activation::kRelu);
  return named_linear(graph, x, concat(name, ".adapter.", k + 2), width, kSmall, kSmall);
}

Value adapt(Graph& graph, Value input, Value output, const std::string& name, const AdaptorConfig& config) {
  switch (config.kind) {
    case AdaptorKind::kNormal:
      return add(graph, output, bottleneck(graph, output, name, config));
    case AdaptorKind::kParallel:
      return add(graph, output, bottleneck(graph, input, name, config));
    case AdaptorKind::kScaledParallel: {
      const Value change = bottleneck(graph, input, name, config);
      const Param scale = graph.param(name + ".adapter_scale", {1}, Initializer::ones());
      return add(graph, output, scale_by_param(graph, change, scale));
    }
  }
  fail(ErrorKind::kInternal, "adapt: unknown kind ", static_cast<int>(config.kind));
}

}  // namespace permafrost
