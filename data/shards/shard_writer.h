#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "data/shards/shard_layout.h"
#include "data/tokenizer/tokenizer.h"

namespace permafrost {

struct ShardWriterConfig {
  std::filesystem::path folder;
  TextTask task = TextTask::kCaptions;
  /// Token ids are made with it and stored; null: texts are encoded when they are read. Not used by kClasses.
  const Tokenizer* tokenizer = nullptr;
  int64_t labels_per_image = 0;
  int64_t shard = 0, shards = 1;  ///< which of how many files the folder will hold
  std::string packed_from;        ///< see ShardHeader
};

struct ShardImage {
  uint64_t id = 0;
  std::string_view name;
  std::span<const uint8_t> bytes;  ///< JPEG or PNG
  std::string_view annotations;    ///< JSON, or nothing
  std::span<const int32_t> classes;
};

/// Writes one shard. Everything is kept in memory until `finish`, which needs twice the size of the shard: under its
/// name a shard is complete. The same calls give the same bytes.
class ShardWriter {
 public:
  explicit ShardWriter(ShardWriterConfig config);

  /// Its number within the shard. Errors: kInvalidArgument for another number of classes than labels_per_image.
  int64_t add_image(const ShardImage& image);
  /// `sample.image` is a number that add_image returned; its classes are not looked at. `position`: place in the
  /// dataset, given for all samples of a folder or for none; reading a folder follows it.
  /// Errors: kInvalidArgument.
  void add_sample(const Sample& sample, int64_t position = -1);

  int64_t image_bytes() const { return static_cast<int64_t>(image_bytes_.size()); }
  std::filesystem::path path() const;
  /// Once. Errors: kStorage.
  void finish();

 private:
  ShardWriterConfig config_;
  ShardIndex index_;
  std::vector<uint8_t> image_bytes_;
};

}  // namespace permafrost
