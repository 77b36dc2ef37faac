#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "data/shards/shard_writer.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {

/// A photograph of `data sample-photos` by its number; odd ones are .png.
inline std::filesystem::path sample_photo(const std::filesystem::path& photos, int number) {
  char name[32];
  std::snprintf(name, sizeof name, "%06d.%s", number, number % 2 ? "png" : "jpg");
  return photos / "images" / name;
}

/// The first photographs of that folder as a shard, each with one caption and annotations, which may be empty.
inline void write_caption_shard(const std::filesystem::path& photos, const std::filesystem::path& folder,
                                const std::vector<std::string>& captions, const std::vector<std::string>& annotations) {
  std::filesystem::create_directories(folder);
  ShardWriterConfig config;
  config.folder = folder;
  ShardWriter writer(config);
  for (size_t i = 0; i < captions.size(); ++i) {
    const std::string bytes = read_file(sample_photo(photos, static_cast<int>(i)));
    const std::vector<uint8_t> photo(bytes.begin(), bytes.end());
    Sample sample;
    sample.id = i;
    sample.image = writer.add_image({i, std::to_string(i), photo, annotations[i], {}});
    sample.caption = captions[i];
    writer.add_sample(sample);
  }
  writer.finish();
}

}  // namespace permafrost
