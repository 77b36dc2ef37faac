#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace permafrost {

enum class CaptionFormat {
  kCoco,      ///< COCO captions: {"images": [{id, file_name}], "annotations": [{id, image_id, caption}]}
  kKarpathy,  ///< dataset_coco.json: {"images": [{filepath, filename, split, sentences: [{sentid, raw}]}]}
};

enum class MissingImages {
  kFail,  ///< an image file that is not in the folder refuses the dataset
  kKeep,  ///< nothing is looked up; whoever decodes decides (see ImagePolicy)
};

struct CaptionDatasetConfig {
  std::filesystem::path captions;  ///< JSON file
  std::filesystem::path images;    ///< folder; file names in the JSON start here
  CaptionFormat format = CaptionFormat::kCoco;
  /// Karpathy's "train" (with "restval", as published), "val" or "test"; empty for all. COCO files have no splits.
  std::string split;
  MissingImages missing_images = MissingImages::kFail;
};

/// One training example. The views live as long as the dataset.
struct Sample {
  uint64_t id = 0;  ///< of the annotation; addresses its random numbers
  int64_t image = 0;
  std::string_view caption;
  std::string_view question, answer;  ///< empty in captioning
};

/// (image, caption) pairs in the order of the file, one sample per caption. Immutable after load.
class CaptionDataset {
 public:
  /// Errors: kData naming the file: not found, malformed JSON (line and column), another structure, a caption whose
  /// image is not listed, ids twice, an image missing in the folder, no samples; kConfig for a split in a COCO file.
  static CaptionDataset load(const CaptionDatasetConfig& config);

  int64_t size() const { return static_cast<int64_t>(records_.size()); }
  Sample sample(int64_t index) const;

  int64_t images() const { return static_cast<int64_t>(image_names_.size()); }
  std::filesystem::path image_path(int64_t image) const { return folder_ / image_names_[static_cast<size_t>(image)]; }
  /// Images of the file (and split) that no caption names; they are in no sample.
  int64_t images_without_caption() const { return images_without_caption_; }

 private:
  friend class CaptionReader;
  struct Record {
    uint64_t id = 0;
    size_t text_begin = 0;
    uint32_t text_bytes = 0;
    uint32_t image = 0;
  };

  std::filesystem::path folder_;
  std::vector<std::string> image_names_;
  std::vector<Record> records_;
  std::string texts_;  // all captions, one behind the other
  int64_t images_without_caption_ = 0;
};

}  // namespace permafrost
