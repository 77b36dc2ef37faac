#pragma once
#include <string>
#include <vector>

#include "configs/load.h"

namespace permafrost::config {

/// A complete small configuration, to be spoilt by overrides.
inline const char* kSmall = R"(
model { epalm {
  vision { image_size: 16 patch: 8 dim: 12 depth: 4 heads: 3 mlp_dim: 48 }
  text { vocab: 67 layers: 8 hidden: 16 heads: 4 ffn: 24 word_embed_proj_dim: 16 do_layer_norm_before: true
         final_layer_norm: true }
  features: 3 start_layer: 1 end_layer: 7
} }
train { max_steps: 10 }
)";

inline Resolved small(const std::vector<std::string>& overrides = {}) {
  return resolve_config(kSmall, "small", overrides);
}

}  // namespace permafrost::config
