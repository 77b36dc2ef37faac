#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace permafrost {

/// Parses a JSON file. `filter` (nlohmann's parser callback) may consume and drop pieces while they are read, so that
/// an annotation file of hundreds of megabytes needs no tree of its own.
/// Errors: kData naming the file, line and column of the first mistake.
nlohmann::json parse_json_file(const std::filesystem::path& path,
                               const nlohmann::json::parser_callback_t& filter = nullptr);

}  // namespace permafrost
