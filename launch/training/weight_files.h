#pragma once
#include <map>
#include <string>

#include "configs/config.pb.h"

namespace permafrost {

/// What tells weight files apart without reading them: by part and tensor ("text decoder.layers.1.fc1.weight") dtype,
/// shape and SHA-256 of its first and last 4096 bytes. A part without a file has no entries.
/// Errors: kWeights and kStorage as in WeightSource.
std::map<std::string, std::string> ends_of_tensors(const config::Config& config);

/// A number that ranks of one machine have equal when they read the very same files: of device, inode, size and time of
/// the last change of each. Errors: those of ends_of_tensors.
int64_t identity_of_files(const config::Config& config);

}  // namespace permafrost
