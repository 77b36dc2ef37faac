#pragma once
#include <filesystem>

#include "parallel/plan/device_specs.h"

namespace permafrost {

/// Ceilings that somebody measured, from a file with one JSON object: "matmul_flops" (FLOPs per second of the largest
/// product) and "copy_bytes_per_s" (bytes read and written together), at least one of them, both positive. Errors:
/// kStorage for a file that cannot be read, kConfig for other content.
MeasuredCeilings read_ceilings(const std::filesystem::path& path);

}  // namespace permafrost
