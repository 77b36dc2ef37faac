#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace permafrost {

/// Writes a file as it is, over one that is there: for one of many files, which count only when a last one names them
/// (write_file_atomically is for that one). Errors: kStorage naming it, said by `who`.
void write_file(const std::filesystem::path& path, std::span<const uint8_t> bytes, std::string_view who);

}  // namespace permafrost
