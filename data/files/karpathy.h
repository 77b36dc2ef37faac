#pragma once
#include <set>
#include <string>

#include "core/base/json.h"

namespace permafrost {

/// Which images of a Karpathy file (dataset_coco.json) are meant, and which splits it has.
class KarpathySplits {
 public:
  /// `wanted`: "train" (with "restval", as published), "val" or "test"; empty for all.
  explicit KarpathySplits(std::string wanted) : wanted_(std::move(wanted)) {}

  /// Notes the split of an image and says whether the image is wanted.
  bool take(const std::string& split);
  /// "test, train": those that were noted.
  std::string known() const;

 private:
  std::string wanted_;
  std::set<std::string> known_;
};

/// Key that numbers an image: "cocoid", else "imgid"; null where it has neither and its place in the file counts.
const char* karpathy_id_key(const Json& image);

}  // namespace permafrost
