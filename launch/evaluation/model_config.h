#pragma once
#include <string>
#include <vector>

#include "configs/load.h"

namespace permafrost {

/// A configuration whose model shall generate: adapter, a file or checkpoint folder, takes the place of weights.adapter
/// unless empty. Errors: kConfig, also when the model is none that generates from images.
config::Resolved load_generating_config(const std::string& path, std::vector<std::string> overrides,
                                        const std::string& adapter);

/// A line for the log where no trained parameters were named; else empty. It names the best or the newest checkpoint
/// where config_path, the file that the configuration came from, is that of a run.
std::string missing_adapter_note(const config::Config& config, const std::string& config_path);

}  // namespace permafrost
