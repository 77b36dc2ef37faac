#include "data/files/json_file.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/json.h"
#include "data/files/read_file.h"

namespace permafrost {

Json parse_json_file(const std::filesystem::path& path, const Json::parser_callback_t& filter) {
  const std::string text = read_text_file(path);
  try {
    return parse_json(text, filter);
  } catch (const Json::parse_error& error) {
    const size_t position = std::min(error.byte > 0 ? error.byte - 1 : 0, text.size());
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(position);
    const auto line = std::count(text.begin(), end, '\n') + 1;
    const size_t line_start = text.rfind('\n', position == 0 ? 0 : position - 1);
    const size_t column =
        line_start == std::string::npos || line_start >= position ? position : position - line_start - 1;
    fail(ErrorKind::kData, "json: well-formed JSON is expected; got a mistake at line ", line, ", column ", column + 1,
         " (byte ", position, " of ", text.size(), "): ", error.what(), " [file=", path.string(), "]");
  } catch (const Json::exception& error) {  // e.g. a number out of range
    fail(ErrorKind::kData, "json: readable JSON is expected; got ", error.what(), " [file=", path.string(), "]");
  }
}

std::string shortened_json(const Json& value) {
  constexpr size_t kShown = 200;
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= kShown ? text : text.substr(0, kShown) + "...";
}

}  // namespace permafrost
