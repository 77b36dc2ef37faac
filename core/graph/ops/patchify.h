#pragma once
#include "core/graph/graph.h"

namespace permafrost {

/// images (B, C, H, W) f32 -> patches (B, (H/P)(W/P), C P P) in the compute dtype, ready for a linear layer with a
/// convolution weight (D, C, P, P). No gradient towards the images is offered when they are inputs.
Value patchify(Graph& graph, Value images, int64_t patch);

}  // namespace permafrost
