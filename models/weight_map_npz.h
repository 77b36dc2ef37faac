#pragma once
#include "models/weight_maps.h"

namespace permafrost {

/// The arrays of a JAX vision transformer (augreg) under timm's names, as timm's own loader turns them: kernels
/// transposed, query, key and value stacked into one matrix. `head` stays, `pre_logits` goes.
/// Errors and what is missing: as map_weights. Source: timm, models/vision_transformer.py.
WeightMap map_jax_vit(const WeightSource& source);

}  // namespace permafrost
