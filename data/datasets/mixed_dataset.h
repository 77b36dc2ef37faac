#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "data/datasets/dataset.h"

namespace permafrost {

/// Several datasets as one: samples and images of the first, then those of the second, and so on. The number of the
/// dataset stands in the bits of a sample id above kSampleIdBits, so that ids are distinct and those of the first stay
/// as they are. How often each is trained on is BatchOrder's business, by `parts`.
class MixedDataset : public Dataset {
 public:
  struct Entry {
    std::unique_ptr<const Dataset> dataset;
    double weight = 1;
  };
  /// Errors: kConfig for weights that are not finite and above 0, no or over 254 datasets; kData when the numbers of
  /// class labels differ.
  explicit MixedDataset(std::vector<Entry> entries);

  int64_t size() const override { return samples_.back(); }
  Sample sample(int64_t index) const override;
  int64_t images() const override { return images_.back(); }
  uint64_t image_id(int64_t image) const override;
  std::string image_name(int64_t image) const override;
  std::string short_image_name(int64_t image) const override;
  void read_image(int64_t image, std::vector<uint8_t>& bytes) const override;
  int64_t image_bytes(int64_t image) const override;
  int64_t labels_per_image() const override { return entries_.front().dataset->labels_per_image(); }
  std::string annotations(int64_t image) const override;
  std::optional<TextPieces> packed_text(int64_t index) const override;
  std::vector<MixPart> parts() const override;

 private:
  /// A sample or image in one of the datasets.
  struct Place {
    size_t entry = 0;
    int64_t index = 0;
  };
  static Place find(const std::vector<int64_t>& starts, int64_t index, const char* what);
  const Dataset& at(const Place& place) const { return *entries_[place.entry].dataset; }

  std::vector<Entry> entries_;
  std::vector<int64_t> samples_{0}, images_{0};  // where each entry begins, then the end
};

}  // namespace permafrost
