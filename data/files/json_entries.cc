#include "data/files/json_entries.h"

#include "core/base/check.h"
#include "data/files/json_file.h"

namespace permafrost {

Json JsonEntries::read() const {
  std::string key;
  bool is_list = false, in_list = false;
  bool wanted = false;  // values below keys that nobody wants are told of all the same
  Json root = parse_json_file(file, [&](int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (depth == 0 && event == Event::array_start) {
      is_list = in_list = wanted = true;
      if (begin) begin("");
    } else if (depth == 1 && !is_list && event == Event::key) {
      key = value.get<std::string>();
      in_list = false;
      return wanted = wants(key);
    } else if (depth == 1 && !is_list && wanted && event == Event::array_start) {
      in_list = true;
      if (begin) begin(key);
    }
    const bool ends = event == Event::value || event == Event::object_end || event == Event::array_end;
    if (!ends || !wanted || depth != (in_list && !is_list ? 2 : 1)) return true;
    take(key, in_list, value);
    return !in_list && event == Event::value;
  });
  if (!root.is_structured())
    fail(ErrorKind::kData, "json: a list or an object is expected; got a ", root.type_name(), " [file=", file.string(),
         "]");
  return root;
}

const Json* JsonFields::find(const Json& entry, const char* key) {
  if (!entry.is_object()) return nullptr;
  const auto found = entry.find(key);
  return found == entry.end() ? nullptr : &*found;
}

uint64_t JsonFields::number(const Json& entry, const char* key, const char* what) const {
  const Json* found = find(entry, key);
  if (!found || !found->is_number_integer() || (!found->is_number_unsigned() && found->get<int64_t>() < 0))
    refuse(what, concat("a whole number '", key, "'"), entry);
  return found->get<uint64_t>();
}

std::string JsonFields::text(const Json& entry, const char* key, const char* what) const {
  const Json* found = find(entry, key);
  if (!found || !found->is_string()) refuse(what, concat("a text '", key, "'"), entry);
  return found->get<std::string>();
}

std::string JsonFields::number_or_text(const Json& entry, const char* key, const char* what) const {
  const Json* found = find(entry, key);
  if (found && found->is_string() && !found->get_ref<const std::string&>().empty()) return found->get<std::string>();
  if (found && found->is_number_unsigned()) return std::to_string(found->get<uint64_t>());
  refuse(what, concat("a whole number or a text '", key, "'"), entry);
}

const Json& JsonFields::list(const Json& entry, const char* key, const char* what) const {
  const Json* found = find(entry, key);
  if (!found || !found->is_array()) refuse(what, concat("a list '", key, "'"), entry);
  return *found;
}

void JsonFields::refuse(const char* what, const std::string& must, const Json& entry) const {
  fail(ErrorKind::kData, who_, ": each ", what, " must have ", must, "; got ", shortened_json(entry), place_);
}

}  // namespace permafrost
