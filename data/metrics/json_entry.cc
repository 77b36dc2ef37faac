#include "data/metrics/json_entry.h"

#include "core/base/check.h"
#include "data/files/json_file.h"

namespace permafrost {

SampleId JsonEntry::id(const char* key) const {
  const auto found = value.is_object() ? value.find(key) : value.end();
  if (found != value.end() && found->is_number_unsigned()) return {std::to_string(found->get<uint64_t>()), true};
  if (found != value.end() && found->is_number_integer()) return {std::to_string(found->get<int64_t>()), true};
  if (found != value.end() && found->is_string() && !found->get_ref<const std::string&>().empty())
    return {found->get<std::string>(), false};
  refuse(concat("a whole number or a text '", key, "' in each entry"));
}

std::string JsonEntry::text(const char* key) const {
  const auto found = value.is_object() ? value.find(key) : value.end();
  if (found == value.end() || !found->is_string()) refuse(concat("a text '", key, "' in each entry"));
  return found->get<std::string>();
}

const Json& JsonEntry::list(const char* key) const {
  const auto found = value.is_object() ? value.find(key) : value.end();
  if (found == value.end() || !found->is_array()) refuse(concat("a list '", key, "' in each entry"));
  return *found;
}

void JsonEntry::refuse(const std::string& expected) const {
  fail(ErrorKind::kData, who, ": ", expected, " is expected; got ", shortened_json(value), " [file=", file.string(),
       "]");
}

JsonEntries read_json_entries(const std::filesystem::path& file, const OnJsonEntry& entry) {
  JsonEntries result;
  std::string key;
  bool seen_start = false, in_list = false;
  const auto on_event = [&](int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (!seen_start) {
      seen_start = true;
      result.is_list = event == Event::array_start;
    }
    if (!result.is_list && depth == 1 && event == Event::key) key = value.get<std::string>();
    if (!result.is_list && depth == 1 && (event == Event::array_start || event == Event::object_start))
      in_list = event == Event::array_start;
    const bool direct = depth == 1 && (result.is_list || !in_list), nested = !result.is_list && in_list && depth == 2;
    if (!direct && !nested) return true;
    if (event != Event::object_end && event != Event::value && event != Event::array_end) return true;
    if (direct && !result.is_list && event != Event::object_end) return true;  // a number beside the lists
    ++result.count;
    entry(key, result.is_list || in_list, value);
    return false;
  };
  const Json root = parse_json_file(file, on_event);
  if (!root.is_array() && !root.is_object())
    fail(ErrorKind::kData, "json: a list or an object is expected; got a ", root.type_name(), " [file=", file.string(),
         "]");
  return result;
}

}  // namespace permafrost
