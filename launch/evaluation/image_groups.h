#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/datasets/dataset.h"

namespace permafrost {

/// Images by the value of one field of what their dataset says about them (Dataset::annotations).
class ImageGroups {
 public:
  struct Group {
    std::string value;  ///< true, false, a number, a text; other values as JSON; "none" without the field or with null
    bool is_true = false;  ///< the JSON value true
  };
  /// images: numbers in the dataset; may repeat. Errors: kConfig when none of them has the field, naming the fields
  /// there are; kData naming the image whose annotations are not a JSON object.
  ImageGroups(const Dataset& dataset, std::span<const int64_t> images, const std::string& field);

  /// None first, then false, true, numbers, texts, each in rising order.
  const std::vector<Group>& groups() const { return groups_; }
  /// Number of the group of one of the images.
  size_t group_of(int64_t image) const { return of_image_.at(image); }

 private:
  std::vector<Group> groups_;
  std::unordered_map<int64_t, size_t> of_image_;
};

}  // namespace permafrost
