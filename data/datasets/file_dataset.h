#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/datasets/sample_store.h"

namespace permafrost {

enum class MissingImages {
  kFail,  ///< an image file that is not in the folder refuses the dataset
  kKeep,  ///< nothing is looked up; whoever decodes decides (see ImagePolicy)
};

/// Samples in memory, images as files of a folder. Datasets that are read from JSON derive from it.
class FileDataset : public Dataset {
 public:
  int64_t size() const override { return store_.size(); }
  Sample sample(int64_t index) const override { return store_.sample(index); }
  int64_t images() const override { return static_cast<int64_t>(image_names_.size()); }
  uint64_t image_id(int64_t image) const override { return image_ids_[place(image)]; }
  std::string image_name(int64_t image) const override { return image_path(image).string(); }
  std::string short_image_name(int64_t image) const override { return image_names_[place(image)]; }
  void read_image(int64_t image, std::vector<uint8_t>& bytes) const override;
  int64_t image_bytes(int64_t image) const override;

  std::filesystem::path image_path(int64_t image) const { return folder_ / image_names_[place(image)]; }
  /// Images of the file (and split) that no sample names.
  int64_t images_without_sample() const { return images_without_sample_; }

 protected:
  /// Number of the image added.
  int64_t add_image(uint64_t id, std::string name);
  /// After the last sample: ids are distinct, and images are in the folder. `place` ends messages, `what` is what the
  /// file calls its samples ("caption"). Errors: kData.
  void finish(MissingImages missing, const std::string& what, const std::string& place);

  std::filesystem::path folder_;
  std::vector<std::string> image_names_;
  std::vector<uint64_t> image_ids_;
  SampleStore store_;

 private:
  /// The image's place in the lists.
  size_t place(int64_t image) const;
  void check_files(const std::string& place) const;

  int64_t images_without_sample_ = 0;
};

}  // namespace permafrost
