#pragma once
#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost::config {

/// Writes the numbers of published sizes (Vit.size, Opt.size) and of a Hugging Face config.json (Opt.hf_config, which
/// is cleared after it was read) into the fields they stand for. A field that was given and disagrees is a problem.
/// Sources: timm vit_base_patch16_224 and vit_large_patch16_224; the config.json of facebook/opt-*.
void expand_sizes(Config& config, Problems& problems);

}  // namespace permafrost::config
