#pragma once
#include <filesystem>
#include <string>

#include "core/base/json.h"

namespace permafrost {

/// Parses a JSON file. `filter` (nlohmann's parser callback) may consume and drop pieces while they are read, so that
/// an annotation file of hundreds of megabytes needs no tree of its own.
/// Errors: kData naming the file, line and column of the first mistake.
Json parse_json_file(const std::filesystem::path& path, const Json::parser_callback_t& filter = nullptr);

/// A value for messages: in ASCII, shortened to 200 characters and "...".
std::string shortened_json(const Json& value);

}  // namespace permafrost
