#include "data/metrics/json_entry.h"

#include "core/base/check.h"
#include "data/files/json_entries.h"
#include "data/files/json_file.h"

namespace permafrost {

SampleId JsonEntry::id(const char* key) const {
  const Json* found = JsonFields::find(value, key);
  if (found && found->is_number_unsigned()) return {std::to_string(found->get<uint64_t>()), true};
  if (found && found->is_number_integer()) return {std::to_string(found->get<int64_t>()), true};
  if (found && found->is_string() && !found->get_ref<const std::string&>().empty())
    return {found->get<std::string>(), false};
  refuse(concat("a whole number or a text '", key, "' in each entry"));
}

std::string JsonEntry::text(const char* key) const {
  const Json* found = JsonFields::find(value, key);
  if (!found || !found->is_string()) refuse(concat("a text '", key, "' in each entry"));
  return found->get<std::string>();
}

const Json& JsonEntry::list(const char* key) const {
  const Json* found = JsonFields::find(value, key);
  if (!found || !found->is_array()) refuse(concat("a list '", key, "' in each entry"));
  return *found;
}

void JsonEntry::refuse(const std::string& expected) const {
  fail(ErrorKind::kData, who, ": ", expected, " is expected; got ", shortened_json(value), " [file=", file.string(),
       "]");
}

}  // namespace permafrost
