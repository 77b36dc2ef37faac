#include "data/datasets/caption_dataset.h"

#include <set>
#include <unordered_map>

#include "core/base/check.h"
#include "data/files/json_entries.h"
#include "data/files/karpathy.h"

namespace permafrost {

/// Takes entries of the file while it is parsed and drops them, so that memory holds the dataset and never the tree.
class CaptionReader {
 public:
  explicit CaptionReader(const CaptionDatasetConfig& config)
      : config_(config), fields_("dataset", config.captions), splits_(config.split) {
    dataset_.folder_ = config.images;
  }

  CaptionDataset read() {
    const bool karpathy = config_.format == CaptionFormat::kKarpathy;
    JsonEntries entries;
    entries.file = config_.captions;
    entries.wants = [](const std::string& key) { return key == "images" || key == "annotations"; };
    entries.begin = [&](const std::string& list) { lists_.insert(list); };
    entries.take = [&](const std::string& list, bool in_list, const Json& entry) {
      if (!in_list) return;
      if (list == "images")
        karpathy ? take_karpathy_image(entry) : take_image(entry);
      else if (list == "annotations" && !karpathy)
        take_annotation(entry);
    };
    const Json root = entries.read();
    const bool has_lists = lists_.contains("images") && (karpathy || lists_.contains("annotations"));
    if (!root.is_object() || !has_lists)
      fail(ErrorKind::kData, "dataset: ",
           karpathy ? "an object with the list 'images' is expected"
                    : "an object with the lists 'images' and 'annotations' is expected",
           "; got ", root.is_object() ? "other keys" : root.type_name(), fields_.place());
    join_images();
    check_captions();
    dataset_.finish(config_.missing_images, "caption", fields_.place());
    return std::move(dataset_);
  }

 private:
  void take_image(const Json& entry) {
    const uint64_t id = fields_.number(entry, "id", "image");
    if (!image_of_id_.emplace(id, dataset_.images()).second)
      fail(ErrorKind::kData, "dataset: image ids must be unique; got id ", id, " twice", fields_.place());
    dataset_.add_image(id, fields_.text(entry, "file_name", "image"));
  }

  void take_annotation(const Json& entry) {
    const uint64_t id = fields_.number(entry, "id", "annotation");
    annotation_images_.push_back(fields_.number(entry, "image_id", "annotation"));
    add_caption(id, 0, fields_.text(entry, "caption", "annotation"));
  }

  void take_karpathy_image(const Json& entry) {
    const uint64_t place = images_seen_++;
    if (!splits_.take(fields_.text(entry, "split", "image"))) return;
    const std::string folder = entry.contains("filepath") ? fields_.text(entry, "filepath", "image") : "";
    const char* id_key = karpathy_id_key(entry);
    const uint64_t id = id_key ? fields_.number(entry, id_key, "image") : place;
    const int64_t image =
        dataset_.add_image(id, (std::filesystem::path(folder) / fields_.text(entry, "filename", "image")).string());
    for (const Json& sentence : fields_.list(entry, "sentences", "image")) {
      const uint64_t sentence_id = fields_.number(sentence, "sentid", "sentence");
      add_caption(sentence_id, image, fields_.text(sentence, "raw", "sentence"));
    }
  }

  void add_caption(uint64_t id, int64_t image, const std::string& caption) {
    Sample sample;
    sample.id = id;
    sample.image = image;
    sample.caption = caption;
    dataset_.store_.add(sample, fields_.place());
  }

  /// COCO: annotations may stand before the images they name.
  void join_images() {
    for (size_t i = 0; i < annotation_images_.size(); ++i) {
      const auto index = static_cast<int64_t>(i);
      const auto found = image_of_id_.find(annotation_images_[i]);
      if (found == image_of_id_.end())
        fail(ErrorKind::kData, "dataset: every caption must name a listed image; got annotation ",
             dataset_.store_.sample(index).id, " with image_id ", annotation_images_[i], ", which is not among ",
             dataset_.images(), " images", fields_.place());
      dataset_.store_.set_image(index, found->second);
    }
  }

  void check_captions() const {
    if (dataset_.size() > 0) return;
    fail(ErrorKind::kData, "dataset: at least one caption is expected; got none",
         config_.split.empty() ? "" : " of split '" + config_.split + "' (the file has: " + splits_.known() + ")",
         fields_.place());
  }

  const CaptionDatasetConfig& config_;
  JsonFields fields_;
  CaptionDataset dataset_;
  KarpathySplits splits_;
  std::set<std::string> lists_;
  uint64_t images_seen_ = 0;
  std::unordered_map<uint64_t, int64_t> image_of_id_;
  std::vector<uint64_t> annotation_images_;
};

CaptionDataset CaptionDataset::load(const CaptionDatasetConfig& config) {
  if (config.format == CaptionFormat::kCoco && !config.split.empty())
    fail(ErrorKind::kConfig, "dataset: a COCO captions file has no splits, so none may be chosen; got split '",
         config.split, "' [file=", config.captions.string(), "]");
  return CaptionReader(config).read();
}

}  // namespace permafrost
