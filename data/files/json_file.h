#pragma once
#include <filesystem>

#include "core/base/json.h"

namespace permafrost {

/// Parses a JSON file. `filter` (nlohmann's parser callback) may consume and drop pieces while they are read, so that
/// an annotation file of hundreds of megabytes needs no tree of its own.
/// Errors: kData naming the file, line and column of the first mistake.
Json parse_json_file(const std::filesystem::path& path, const Json::parser_callback_t& filter = nullptr);

}  // namespace permafrost
