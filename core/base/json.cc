#include "core/base/json.h"

#include <istream>

namespace permafrost {

Json parse_json(std::string_view text, const Json::parser_callback_t& filter) { return Json::parse(text, filter); }
Json parse_json(std::istream& stream) { return Json::parse(stream); }
Json try_parse_json(std::string_view text) { return Json::parse(text, nullptr, /*allow_exceptions=*/false); }
Json try_parse_json(std::istream& stream) { return Json::parse(stream, nullptr, /*allow_exceptions=*/false); }

std::string json_text(const Json& value, int indent) { return value.dump(indent); }
std::string json_text(const OrderedJson& value, int indent) { return value.dump(indent); }

}  // namespace permafrost
