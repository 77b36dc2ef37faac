#include "data/datasets/caption_dataset.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/narrow.h"
#include "data/files/json_file.h"

namespace permafrost {

/// Takes entries of the file while it is parsed and drops them, so that memory holds the dataset and never the tree.
class CaptionReader {
 public:
  explicit CaptionReader(const CaptionDatasetConfig& config) : config_(config) { dataset_.folder_ = config.images; }

  CaptionDataset read() {
    const Json root = parse_json_file(config_.captions, [this](int depth, Json::parse_event_t event, Json& value) {
      return on_event(depth, event, value);
    });
    const bool has_lists = config_.format == CaptionFormat::kKarpathy ? has_images_ : has_images_ && has_annotations_;
    if (!root.is_object() || !has_lists)
      fail(ErrorKind::kData, "dataset: ",
           config_.format == CaptionFormat::kKarpathy
               ? "an object with the list 'images' is expected"
               : "an object with the lists 'images' and 'annotations' is expected",
           "; got ", root.is_object() ? "other keys" : root.type_name(), place());
    join_images();
    check_samples();
    check_files();
    return std::move(dataset_);
  }

 private:
  bool on_event(int depth, Json::parse_event_t event, Json& value) {
    if (depth == 1 && event == Json::parse_event_t::key) {
      key_ = value.get<std::string>();
      return key_ == "images" || key_ == "annotations";
    }
    if (depth == 1 && event == Json::parse_event_t::array_start) {
      has_images_ |= key_ == "images";
      has_annotations_ |= key_ == "annotations";
    }
    if (depth != 2 || event != Json::parse_event_t::object_end) return true;
    const bool karpathy = config_.format == CaptionFormat::kKarpathy;
    if (key_ == "images") {
      karpathy ? take_karpathy_image(value) : take_image(value);
    } else if (key_ == "annotations" && !karpathy) {
      take_annotation(value);
    }
    return false;
  }

  void take_image(const Json& entry) {
    const uint64_t id = number(entry, "id", "image");
    if (!image_of_id_.emplace(id, dataset_.image_names_.size()).second)
      fail(ErrorKind::kData, "dataset: image ids must be unique; got id ", id, " twice", place());
    dataset_.image_names_.push_back(text(entry, "file_name", "image"));
  }

  void take_annotation(const Json& entry) {
    const uint64_t id = number(entry, "id", "annotation");
    annotation_images_.push_back(number(entry, "image_id", "annotation"));
    add_record(id, 0, text(entry, "caption", "annotation"));
  }

  void take_karpathy_image(const Json& entry) {
    std::string split = text(entry, "split", "image");
    if (split == "restval") split = "train";
    splits_.insert(split);
    if (!config_.split.empty() && split != config_.split) return;
    const size_t image = dataset_.image_names_.size();
    const std::string folder = entry.contains("filepath") ? text(entry, "filepath", "image") : "";
    dataset_.image_names_.push_back((std::filesystem::path(folder) / text(entry, "filename", "image")).string());
    if (!entry.contains("sentences") || !entry["sentences"].is_array())
      fail(ErrorKind::kData, "dataset: each image must have a list 'sentences'; got ", shortened(entry), place());
    for (const Json& sentence : entry["sentences"]) {
      const uint64_t id = number(sentence, "sentid", "sentence");
      add_record(id, image, text(sentence, "raw", "sentence"));
    }
  }

  void add_record(uint64_t id, size_t image, const std::string& caption) {
    dataset_.records_.push_back(
        {id, dataset_.texts_.size(), narrow<uint32_t>(caption.size()), narrow<uint32_t>(image)});
    dataset_.texts_ += caption;
  }

  /// COCO: annotations may stand before the images they name.
  void join_images() {
    for (size_t i = 0; i < annotation_images_.size(); ++i) {
      const auto found = image_of_id_.find(annotation_images_[i]);
      if (found == image_of_id_.end())
        fail(ErrorKind::kData, "dataset: every caption must name a listed image; got annotation ",
             dataset_.records_[i].id, " with image_id ", annotation_images_[i], ", which is not among ",
             dataset_.image_names_.size(), " images", place());
      dataset_.records_[i].image = narrow<uint32_t>(found->second);
    }
  }

  void check_samples() {
    if (dataset_.records_.empty()) {
      std::string splits;
      for (const auto& split : splits_) splits += (splits.empty() ? "" : ", ") + split;
      fail(ErrorKind::kData, "dataset: at least one caption is expected; got none",
           config_.split.empty() ? "" : " of split '" + config_.split + "' (the file has: " + splits + ")", place());
    }
    std::vector<uint64_t> ids;
    std::vector<bool> named(dataset_.image_names_.size());
    for (const auto& record : dataset_.records_) {
      ids.push_back(record.id);
      named[record.image] = true;
    }
    std::sort(ids.begin(), ids.end());
    if (const auto twice = std::adjacent_find(ids.begin(), ids.end()); twice != ids.end())
      fail(ErrorKind::kData, "dataset: caption ids must be unique; got id ", *twice, " twice", place());
    dataset_.images_without_caption_ = std::count(named.begin(), named.end(), false);
  }

  void check_files() {
    if (config_.missing_images == MissingImages::kKeep) return;
    if (!std::filesystem::is_directory(config_.images))
      fail(ErrorKind::kData,
           "dataset: a folder of images is expected; got no such folder [file=", config_.images.string(), "]");
    int64_t missing = 0;
    std::filesystem::path first;
    for (int64_t i = 0; i < dataset_.images(); ++i) {
      std::error_code ignored;
      if (std::filesystem::exists(dataset_.image_path(i), ignored)) continue;
      if (missing++ == 0) first = dataset_.image_path(i);
    }
    if (missing > 0)
      fail(ErrorKind::kData, "dataset: every listed image must be in the folder; got ", missing, " of ",
           dataset_.images(), " missing, the first is ", first.string(), place());
  }

  uint64_t number(const Json& entry, const char* key, const char* what) const {
    const auto found = entry.is_object() ? entry.find(key) : entry.end();
    if (found == entry.end() || !found->is_number_integer() ||
        (!found->is_number_unsigned() && found->get<int64_t>() < 0))
      fail(ErrorKind::kData, "dataset: each ", what, " must have a whole number '", key, "'; got ", shortened(entry),
           place());
    return found->get<uint64_t>();
  }

  std::string text(const Json& entry, const char* key, const char* what) const {
    const auto found = entry.is_object() ? entry.find(key) : entry.end();
    if (found == entry.end() || !found->is_string())
      fail(ErrorKind::kData, "dataset: each ", what, " must have a text '", key, "'; got ", shortened(entry), place());
    return found->get<std::string>();
  }

  static std::string shortened(const Json& entry) {
    constexpr size_t kShown = 200;
    const std::string text = entry.dump(-1, ' ', true, Json::error_handler_t::replace);
    return text.size() <= kShown ? text : text.substr(0, kShown) + "...";
  }

  std::string place() const { return " [file=" + config_.captions.string() + "]"; }

  const CaptionDatasetConfig& config_;
  CaptionDataset dataset_;
  std::string key_;  // of the top level, whose value is being read
  bool has_images_ = false, has_annotations_ = false;
  std::unordered_map<uint64_t, size_t> image_of_id_;
  std::vector<uint64_t> annotation_images_;
  std::set<std::string> splits_;
};

CaptionDataset CaptionDataset::load(const CaptionDatasetConfig& config) {
  if (config.format == CaptionFormat::kCoco && !config.split.empty())
    fail(ErrorKind::kConfig, "dataset: a COCO captions file has no splits, so none may be chosen; got split '",
         config.split, "' [file=", config.captions.string(), "]");
  return CaptionReader(config).read();
}

Sample CaptionDataset::sample(int64_t index) const {
  PERMAFROST_CHECK(index >= 0 && index < size(), "dataset: index must lie in 0..", size() - 1, "; got ", index);
  const Record& record = records_[static_cast<size_t>(index)];
  return {record.id, record.image, std::string_view(texts_).substr(record.text_begin, record.text_bytes), {}, {}};
}

}  // namespace permafrost
