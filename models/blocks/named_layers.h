#pragma once
#include <string>

#include "core/graph/graph.h"

namespace permafrost {

/// Layers whose parameters are called `name`.weight and `name`.bias, as in published files.

/// y = activation(x W^T + b).  x: (..., K);  weight: (width, K);  bias: (width);  y: (..., width).
Value named_linear(Graph& graph, Value x, const std::string& name, int64_t width, const Initializer& weight,
                   const Initializer& bias, Activation activation = Activation::kNone);

/// y = x W^T.
Value named_projection(Graph& graph, Value x, const std::string& name, int64_t width, const Initializer& weight);

/// Layer norm over the last axis; the gain starts as 1, the bias as 0.
Value named_layer_norm(Graph& graph, Value x, const std::string& name, float eps);

/// How ViT (timm) and OPT (Hugging Face) start the weights and biases of their layers.
inline constexpr Initializer kTransformerWeight = Initializer::normal(0.02f), kTransformerBias = Initializer::zeros();

/// How PyTorch starts weight and bias of a linear layer or convolution: uniform in +-1/sqrt(fan_in).
/// Source: torch.nn.Linear.reset_parameters (kaiming_uniform with a = sqrt 5).
Initializer torch_default(int64_t fan_in);

}  // namespace permafrost
