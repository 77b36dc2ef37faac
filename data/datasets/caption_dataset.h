#pragma once
#include <filesystem>
#include <string>

#include "data/datasets/file_dataset.h"

namespace permafrost {

enum class CaptionFormat {
  kCoco,      ///< COCO captions: {"images": [{id, file_name}], "annotations": [{id, image_id, caption}]}
  kKarpathy,  ///< dataset_coco.json: {"images": [{filepath, filename, cocoid, split, sentences: [{sentid, raw}]}]}
};

struct CaptionDatasetConfig {
  std::filesystem::path captions;  ///< JSON file
  std::filesystem::path images;    ///< folder; file names in the JSON start here
  CaptionFormat format = CaptionFormat::kCoco;
  /// Karpathy's "train" (with "restval", as published), "val" or "test"; empty for all. COCO files have no splits.
  std::string split;
  MissingImages missing_images = MissingImages::kFail;
};

/// (image, caption) pairs in the order of the file, one sample per caption; its id is the annotation's.
/// image_id: "id" or "cocoid"; where a Karpathy file lacks "cocoid", "imgid"; where it lacks both, the image's place in
/// the file.
class CaptionDataset : public FileDataset {
 public:
  /// Errors: kData naming the file: not found, malformed JSON (line and column), another structure, a caption whose
  /// image is not listed, ids twice, an image missing in the folder, no samples; kConfig for a split in a COCO file.
  static CaptionDataset load(const CaptionDatasetConfig& config);

 private:
  friend class CaptionReader;
};

}  // namespace permafrost
