#pragma once
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace permafrost {

using Json = nlohmann::json;                 ///< for reading: finds keys fast
using OrderedJson = nlohmann::ordered_json;  ///< for writing: keys stay in the order in which they were given

// The library's parser and printer are large templates; here they are compiled once, and not in every file that reads
// or writes JSON.

/// Throws Json::parse_error.
Json parse_json(std::string_view text, const Json::parser_callback_t& filter = nullptr);
Json parse_json(std::istream& stream);
/// What is not JSON gives a value for which is_discarded().
Json try_parse_json(std::string_view text);
Json try_parse_json(std::istream& stream);

/// indent < 0: all on one line. Throws Json::type_error for strings that are not UTF-8.
std::string json_text(const Json& value, int indent = -1);
std::string json_text(const OrderedJson& value, int indent = -1);

}  // namespace permafrost
