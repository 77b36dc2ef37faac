#pragma once
#include "core/graph/graph.h"

namespace permafrost::testing {

struct ToyConfig {
  int64_t batch = 2, tokens = 5, width = 16, heads = 2, hidden = 24, vocab = 11;
  int blocks = 3;
  DType compute = DType::kF32;
  Activation even_blocks = Activation::kRelu;  ///< odd ones have kGelu
};

/// A small causal transformer with everything planners must cope with: residual streams, a tied head, fused and
/// separate products, norms, an embedding. Parameters "embed.weight", "blocks.{i}.<part>", "norm.weight".
/// Inputs "ids" (B, T) i32, "labels" (B, T) i32, "row_weight" (B, T) f32. Values "blocks.{i}.out", "logits", "loss".
Graph toy_transformer(const ToyConfig& config);

}  // namespace permafrost::testing
