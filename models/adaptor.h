#pragma once
#include <cstdint>
#include <string>

#include "core/graph/graph.h"

namespace permafrost {

/// Where a bottleneck stands to the part of a layer that it adapts.
enum class AdaptorKind : uint8_t {
  kNormal,          ///< y + A(y), y the part's output
  kParallel,        ///< y + A(x), x the part's input
  kScaledParallel,  ///< y + s A(x), s one trained number that starts at 1
};

/// The part of a text layer that is adapted.
enum class AdaptorLocation : uint8_t { kMlp, kAttention };

struct AdaptorConfig {
  AdaptorKind kind = AdaptorKind::kNormal;
  int64_t factor = 4;  ///< width / factor, rounded down, is the bottleneck
  bool layer_norm = false;
  AdaptorLocation location = AdaptorLocation::kMlp;
};

/// A(x): optional layer norm, linear to width / factor, ReLU, linear back. x and result: (..., width).
/// Parameters `name`.adapter.{k}.weight|bias with PyTorch's numbers in a Sequential: k = 0, 2; with layer norm 0
/// (norm), 1, 3. Linear layers start as N(0, 1e-3) cut to +-2e-3.
/// Source: MAGMA (Eichenberg et al. 2022), adapters.py.
Value bottleneck(Graph& graph, Value x, const std::string& name, const AdaptorConfig& config);

/// The adapted output of a part with this input and output; both (..., width). Parameters as above and, scaled,
/// `name`.adapter_scale (1).
Value adapt(Graph& graph, Value input, Value output, const std::string& name, const AdaptorConfig& config);

}  // namespace permafrost
