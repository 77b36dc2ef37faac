#pragma once
#include <algorithm>
#include <array>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/kernels/cross_entropy.h"
#include "data/shards/shard_writer.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {

/// Class labels of an image of sample-photos, from its first caption, "a red circle above a blue square": colour (of 6)
/// and shape (of 3) of the first thing, and whether the things stand above each other, which nobody says of black ones.
inline std::vector<int32_t> classes_of_caption(const std::string& caption) {
  std::istringstream words(caption);
  std::string article, colour, shape, relation;
  words >> article >> colour >> shape >> relation;
  const auto number = [](const auto& names, const std::string& name) {
    return static_cast<int32_t>(std::ranges::find(names, name) - names.begin());
  };
  const std::array<std::string, 6> colours{"red", "green", "blue", "yellow", "white", "black"};
  const std::array<std::string, 3> shapes{"circle", "square", "triangle"};
  const bool vertical = relation == "above" || relation == "below";
  return {number(colours, colour), number(shapes, shape), colour == "black" ? kIgnoredLabel : vertical ? 1 : 0};
}

/// Packs the folder of `data sample-photos` as one shard of images with the first `labels` class labels: data.task
/// CLASSES.
inline void write_class_shards(const std::filesystem::path& photos, const std::filesystem::path& folder,
                               int64_t labels = 3) {
  std::filesystem::create_directories(folder);
  const Json all = parse_json(read_file(photos / "captions.json"));
  ShardWriterConfig config;
  config.folder = folder;
  config.task = TextTask::kClasses;
  config.labels_per_image = labels;
  ShardWriter writer(config);
  for (const auto& image : all["images"]) {
    const std::string name = image["file_name"];
    const std::string photo = read_file(photos / "images" / name);
    const std::vector<uint8_t> bytes(photo.begin(), photo.end());
    const auto caption = std::ranges::find_if(
        all["annotations"], [&](const Json& annotation) { return annotation["image_id"] == image["id"]; });
    std::vector<int32_t> classes = classes_of_caption((*caption)["caption"]);
    classes.resize(static_cast<size_t>(labels));
    Sample sample;
    sample.id = image["id"];
    sample.image = writer.add_image({sample.id, name, bytes, {}, classes});
    writer.add_sample(sample);
  }
  writer.finish();
}

/// The quickstart's vision part as a classifier of such shards.
inline std::vector<std::string> classifier_settings(const std::filesystem::path& shards) {
  std::vector<std::string> all;
  for (const char* field : {"labels=3", "classes=6", "vision.image_size=32", "vision.patch=8", "vision.dim=32",
                            "vision.depth=2", "vision.heads=4", "vision.mlp_dim=64"})
    all.push_back(std::string("model.vision_classifier.") + field);
  for (const std::string& field :
       {std::string("task=CLASSES"), std::string("format=SHARDS"), "shards=" + shards.string()})
    all.push_back("data." + field);
  return all;
}

}  // namespace permafrost
