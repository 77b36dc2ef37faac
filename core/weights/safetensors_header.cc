#include <algorithm>
#include <set>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/weights/safetensors.h"

namespace permafrost {

namespace {

/// One header being read; every complaint begins with the file's name.
struct HeaderParser {
  const std::string& path;
  int64_t data_begin;
  int64_t data_bytes;

  template <typename... Args>
  [[noreturn]] void refuse(const Args&... args) const {
    fail(ErrorKind::kWeights, path, ": ", args...);
  }

  /// JSON libraries keep one of two equal keys in silence; here that is an error.
  Json parse_unique(std::string_view text) const {
    std::vector<std::set<std::string>> open_objects;
    const Json::parser_callback_t check = [&](int, Json::parse_event_t event, Json& parsed) {
      if (event == Json::parse_event_t::object_start) {
        open_objects.emplace_back();
      } else if (event == Json::parse_event_t::object_end) {
        open_objects.pop_back();
      } else if (event == Json::parse_event_t::key) {
        if (!open_objects.back().insert(parsed.get<std::string>()).second)
          refuse("header must name every key once; got '", parsed.get<std::string>(), "' twice");
      }
      return true;
    };
    try {
      return parse_json(text, check);
    } catch (const Json::exception& error) {
      refuse("header must be JSON; got: ", error.what());
    }
  }

  std::map<std::string, std::string> metadata(const Json& entry) const {
    if (!entry.is_object()) refuse("__metadata__ must be an object of strings; got ", entry.type_name());
    std::map<std::string, std::string> result;
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) refuse("__metadata__ must hold strings; got ", value.type_name(), " for '", key, "'");
      result.emplace(key, value.get<std::string>());
    }
    return result;
  }

  /// Integers in [0, 2^63); anything else is refused.
  std::vector<int64_t> integers(const Json& entry, const std::string& name, const char* field) const {
    if (!entry.contains(field) || !entry[field].is_array()) refuse("tensor '", name, "': ", field, " must be a list");
    std::vector<int64_t> values;
    for (const Json& value : entry[field]) {
      if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        refuse("tensor '", name, "': ", field, " must hold integers from 0 to 2^63-1; got ", json_text(value));
      values.push_back(value.get<int64_t>());
    }
    return values;
  }

  int64_t bytes_of(const std::string& name, const Shape& shape, const StoredDType& dtype) const {
    const std::optional<int64_t> bits = stored_bits(shape, dtype.bits);
    if (!bits) refuse("tensor '", name, "': size of shape ", shape, " overflows");
    if (*bits % 8 != 0)
      refuse("tensor '", name, "': ", shape, " ", dtype.name, " must fill whole bytes; got ", *bits, " bits");
    return *bits / 8;
  }

  StoredTensor tensor(const std::string& name, const Json& entry) const {
    if (!entry.is_object()) refuse("tensor '", name, "' must be described by an object; got ", entry.type_name());
    for (const auto& [key, value] : entry.items())
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        refuse("tensor '", name, "': expected dtype, shape and data_offsets; got '", key, "'");
    if (!entry.contains("dtype") || !entry["dtype"].is_string()) refuse("tensor '", name, "': dtype must be a string");
    const auto word = entry["dtype"].get<std::string>();
    const StoredDType* known = find_stored_dtype(word);
    if (!known) refuse("tensor '", name, "': dtype must be one of safetensors'; got '", word, "'");

    const std::vector<int64_t> extents = integers(entry, name, "shape");
    if (extents.size() > Shape::kMaxRank)
      refuse("tensor '", name, "': shape must have at most ", Shape::kMaxRank, " axes; got ", extents.size());
    const Shape shape{std::span<const int64_t>(extents)};
    const std::vector<int64_t> range = integers(entry, name, "data_offsets");
    if (range.size() != 2 || range[0] > range[1] || range[1] > data_bytes)
      refuse("tensor '", name, "': data_offsets must be [begin, end] within the file's ", data_bytes,
             " bytes of data; got ", json_text(entry["data_offsets"]));
    const int64_t bytes = bytes_of(name, shape, *known);
    if (range[1] - range[0] != bytes)
      refuse("tensor '", name, "': ", shape, " ", word, " takes ", bytes, " bytes; got data_offsets of ",
             range[1] - range[0], " bytes");
    return {name, word, known->dtype, shape, data_begin + range[0], bytes};
  }

  void require_cover(const std::vector<StoredTensor>& tensors) const {
    int64_t end = data_begin;
    for (const StoredTensor& tensor : tensors) {
      if (tensor.file_offset != end)
        refuse("tensor '", tensor.name, "': data must begin at byte ", end,
               " of the file, right behind the tensor before; got ", tensor.file_offset,
               tensor.file_offset < end ? " (overlap)" : " (gap)");
      end += tensor.bytes;
    }
    if (end != data_begin + data_bytes)
      refuse("the tensors of the header end at byte ", end, "; got a file of ", data_begin + data_bytes, " bytes");
  }
};
}  // namespace

SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view text, int64_t data_begin,
                                           int64_t data_bytes) {
  const HeaderParser parser{path, data_begin, data_bytes};
  const Json header = parser.parse_unique(text);
  if (!header.is_object()) parser.refuse("header must be a JSON object; got ", header.type_name());
  SafetensorsHeader result;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      result.metadata = parser.metadata(entry);
    } else {
      result.tensors.push_back(parser.tensor(name, entry));
    }
  }
  // Empty tensors share their offset with the one behind them: end decides, then name.
  std::ranges::sort(result.tensors, [](const StoredTensor& a, const StoredTensor& b) {
    return std::tie(a.file_offset, a.bytes, a.name) < std::tie(b.file_offset, b.bytes, b.name);
  });
  parser.require_cover(result.tensors);
  return result;
}

}  // namespace permafrost
