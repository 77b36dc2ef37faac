#pragma once
#include <cstdint>
#include <filesystem>

namespace permafrost {

/// Bytes of memory that could still be taken: what the machine says is available, or what the limits of this process's
/// control group and of those above it leave where that is less (page cache counts as free). INT64_MAX where neither is
/// known. root: where /proc and /sys are, for tests.
int64_t free_memory_bytes(const std::filesystem::path& root = "/");

/// Bytes of memory that this process may ever have: the machine's, or the least of the limits of its control group and
/// of those above it. INT64_MAX where neither is known.
int64_t memory_limit_bytes(const std::filesystem::path& root = "/");

}  // namespace permafrost
