#include "launch/evaluation/image_groups.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/base/check.h"
#include "core/base/json.h"

namespace permafrost {

namespace {

std::string name_of_value(const Json& value) {
  if (value.is_null()) return "none";
  return value.is_string() ? value.get<std::string>() : json_text(value);
}

Json annotations_of_image(const Dataset& dataset, int64_t image) {
  const std::string text = dataset.annotations(image);
  if (text.empty()) return Json::object();
  Json annotations = try_parse_json(text);
  if (!annotations.is_object())
    fail(ErrorKind::kData, "evaluation.group_by: annotations of every image must be a JSON object; got ",
         text.substr(0, 80), " [", dataset.image_name(image), "]");
  return annotations;
}

}  // namespace

ImageGroups::ImageGroups(const Dataset& dataset, std::span<const int64_t> images, const std::string& field) {
  // By name, so that a text and a number that are written alike are one group.
  std::map<std::string, Json> values;
  std::unordered_map<int64_t, std::string> names;
  std::set<std::string> fields;
  for (const int64_t image : images) {
    if (names.contains(image)) continue;
    const Json annotations = annotations_of_image(dataset, image);
    for (const auto& [name, value] : annotations.items()) fields.insert(name);
    const auto found = annotations.find(field);
    const Json value = found == annotations.end() ? Json() : *found;
    names[image] = values.emplace(name_of_value(value), value).first->first;
  }
  if (!fields.contains(field)) {
    std::string known;
    for (const std::string& name : fields) known.append(known.empty() ? "" : ", ").append(name);
    fail(ErrorKind::kConfig, "evaluation.group_by: a field of the annotations of images in evaluation.data expected (",
         known.empty() ? "they have none" : known, "); got \"", field, '"');
  }
  std::vector<std::pair<Json, std::string>> sorted;
  for (const auto& [name, value] : values) sorted.emplace_back(value, name);
  std::ranges::sort(sorted);
  std::map<std::string, size_t> number;
  for (const auto& [value, name] : sorted) {
    number[name] = groups_.size();
    groups_.push_back({name, value.is_boolean() && value.get<bool>()});
  }
  for (const auto& [image, name] : names) of_image_[image] = number.at(name);
}

}  // namespace permafrost
