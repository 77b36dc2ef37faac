#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace permafrost {

/// All bytes of a regular file. Errors: kData naming the path and the system's reason.
std::string read_text_file(const std::filesystem::path& path);

/// The same into a buffer whose capacity is kept, for callers that read one file after another.
void read_binary_file(const std::filesystem::path& path, std::vector<uint8_t>& bytes);

}  // namespace permafrost
