#include "data/datasets/mixed_dataset.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "data/datasets/sample_id.h"

namespace permafrost {

MixedDataset::MixedDataset(std::vector<Entry> entries) : entries_(std::move(entries)) {
  constexpr size_t kMost = 254;  // the highest id of all fills micro-batches up
  if (entries_.empty() || entries_.size() > kMost)
    fail(ErrorKind::kConfig, "mix: 1 to ", kMost, " datasets are expected; got ", entries_.size(), " [param=data.mix]");
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (!(entry.weight > 0 && std::isfinite(entry.weight)))
      fail(ErrorKind::kConfig, "mix: a finite weight above 0 is expected; got ", entry.weight, " [param=data.mix[", i,
           "].weight]");
    if (entry.dataset->labels_per_image() != labels_per_image())
      fail(ErrorKind::kData, "mix: datasets with ", labels_per_image(), " class labels per image, as in the first, ",
           "are expected; got ", entry.dataset->labels_per_image(), " in mix[", i, "]");
    samples_.push_back(samples_.back() + entry.dataset->size());
    images_.push_back(images_.back() + entry.dataset->images());
  }
}

MixedDataset::Place MixedDataset::find(const std::vector<int64_t>& starts, int64_t index, const char* what) {
  PERMAFROST_CHECK(index >= 0 && index < starts.back(), "dataset: ", what, " must lie in 0..", starts.back() - 1,
                   "; got ", index);
  const auto entry = static_cast<size_t>(std::ranges::upper_bound(starts, index) - starts.begin()) - 1;
  return {entry, index - starts[entry]};
}

Sample MixedDataset::sample(int64_t index) const {
  const Place place = find(samples_, index, "index");
  Sample sample = at(place).sample(place.index);
  sample.id |= static_cast<uint64_t>(place.entry) << kSampleIdBits;
  sample.image += images_[place.entry];
  return sample;
}

uint64_t MixedDataset::image_id(int64_t image) const {
  const Place place = find(images_, image, "image");
  return at(place).image_id(place.index);
}

std::string MixedDataset::image_name(int64_t image) const {
  const Place place = find(images_, image, "image");
  return at(place).image_name(place.index);
}

std::string MixedDataset::short_image_name(int64_t image) const {
  const Place place = find(images_, image, "image");
  return at(place).short_image_name(place.index);
}

void MixedDataset::read_image(int64_t image, std::vector<uint8_t>& bytes) const {
  const Place place = find(images_, image, "image");
  at(place).read_image(place.index, bytes);
}

int64_t MixedDataset::image_bytes(int64_t image) const {
  const Place place = find(images_, image, "image");
  return at(place).image_bytes(place.index);
}

std::string MixedDataset::annotations(int64_t image) const {
  const Place place = find(images_, image, "image");
  return at(place).annotations(place.index);
}

std::optional<TextPieces> MixedDataset::packed_text(int64_t index) const {
  const Place place = find(samples_, index, "index");
  return at(place).packed_text(place.index);
}

std::vector<MixPart> MixedDataset::parts() const {
  std::vector<MixPart> parts;
  for (size_t i = 0; i < entries_.size(); ++i)
    parts.push_back({samples_[i], entries_[i].dataset->size(), entries_[i].weight});
  return parts;
}

}  // namespace permafrost
