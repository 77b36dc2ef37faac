#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "data/datasets/dataset.h"

namespace permafrost {

/// What all datasets that stand on others do with images: they pass the call on.
class WrappedDataset : public Dataset {
 public:
  explicit WrappedDataset(std::unique_ptr<const Dataset> base) : base_(std::move(base)) {}
  int64_t images() const override { return base_->images(); }
  uint64_t image_id(int64_t image) const override { return base_->image_id(image); }
  std::string image_name(int64_t image) const override { return base_->image_name(image); }
  std::string short_image_name(int64_t image) const override { return base_->short_image_name(image); }
  void read_image(int64_t image, std::vector<uint8_t>& bytes) const override { base_->read_image(image, bytes); }
  int64_t image_bytes(int64_t image) const override { return base_->image_bytes(image); }
  int64_t labels_per_image() const override { return base_->labels_per_image(); }
  std::string annotations(int64_t image) const override { return base_->annotations(image); }

 protected:
  const Dataset& base() const { return *base_; }

 private:
  std::unique_ptr<const Dataset> base_;
};

/// Some samples of a dataset, in its order. Images keep their numbers.
class SelectedDataset : public WrappedDataset {
 public:
  /// Errors: kInvalidArgument for indices out of range or not ascending.
  SelectedDataset(std::unique_ptr<const Dataset> base, std::vector<int64_t> indices);
  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  Sample sample(int64_t index) const override { return base().sample(base_index(index)); }
  std::optional<TextPieces> packed_text(int64_t index) const override { return base().packed_text(base_index(index)); }

 private:
  int64_t base_index(int64_t index) const;
  std::vector<int64_t> indices_;
};

/// `count` of `samples` indices, ascending: the first ones, or those that a permutation by seed puts first. A smaller
/// count gives a part of what a larger one gives.
std::vector<int64_t> first_indices(int64_t samples, int64_t count);
std::vector<int64_t> random_indices(int64_t samples, int64_t count, uint64_t seed);

}  // namespace permafrost
