#include "data/files/karpathy.h"

#include "data/files/json_entries.h"

namespace permafrost {

bool KarpathySplits::take(const std::string& split) {
  const std::string joined = split == "restval" ? "train" : split;
  known_.insert(joined);
  return wanted_.empty() || joined == wanted_;
}

std::string KarpathySplits::known() const {
  std::string names;
  for (const std::string& split : known_) names += (names.empty() ? "" : ", ") + split;
  return names;
}

const char* karpathy_id_key(const Json& image) {
  for (const char* key : {"cocoid", "imgid"})
    if (JsonFields::find(image, key)) return key;
  return nullptr;
}

}  // namespace permafrost
