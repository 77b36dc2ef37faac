#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/weights/atomic_file.h"
#include "data/datasets/sample_store.h"
#include "data/shards/shard_layout.h"

namespace permafrost {

struct ShardDatasetConfig {
  std::filesystem::path path;  ///< a folder of shards, or one of them
  TextTask task = TextTask::kCaptions;
  std::string tokenizer_sha256;  ///< of the tokenizer that reads with it; empty with kClasses
  int64_t vocabulary = 0;        ///< its size: token ids lie below; 0: not checked
};

/// What ShardWriter wrote: texts in memory, images read by slices of the files. Samples stand in the order of the
/// dataset that was packed, so that training from shards is training from its files.
class ShardDataset : public Dataset {
 public:
  /// Errors: kData naming the file: none found, one of the folder's shards missing, shards of several datasets, another
  /// task, another tokenizer (with both hashes), another version, damage (naming sample and image), token ids that the
  /// tokenizer does not have, no samples.
  static std::unique_ptr<const ShardDataset> open(const ShardDatasetConfig& config);

  int64_t size() const override { return store_.size(); }
  Sample sample(int64_t index) const override;
  int64_t images() const override { return static_cast<int64_t>(images_.size()); }
  uint64_t image_id(int64_t image) const override { return at(image).id; }
  std::string image_name(int64_t image) const override;
  std::string short_image_name(int64_t image) const override { return std::string(at(image).name); }
  /// Errors: kData naming shard, image and a sample of it when the bytes cannot be read or their checksum differs.
  void read_image(int64_t image, std::vector<uint8_t>& bytes) const override;
  int64_t image_bytes(int64_t image) const override { return at(image).bytes; }
  int64_t labels_per_image() const override { return labels_per_image_; }
  std::string annotations(int64_t image) const override { return std::string(at(image).annotations); }
  std::optional<TextPieces> packed_text(int64_t index) const override;

 private:
  ShardDataset() = default;
  struct Shard {
    std::filesystem::path path;
    ShardIndex index;
    std::vector<uint64_t> first_pieces;
    FileDescriptor file;
    int64_t bytes_begin = 0;
  };
  struct Image {
    size_t shard = 0;
    int64_t offset = 0, bytes = 0;
    uint64_t id = 0;
    uint32_t crc32c = 0;
    std::string_view name, annotations;
    int64_t first_sample = -1;
  };
  /// Where a sample stands in the files.
  struct Place {
    uint64_t position = 0;
    size_t shard = 0;
    int64_t sample = 0, image = 0;
  };
  static void check_token_ids(const Shard& shard, int64_t vocabulary);
  void add_shard(const std::filesystem::path& path, const ShardDatasetConfig& config);
  void check_same_dataset() const;
  void order_samples();
  const Image& at(int64_t image) const;

  std::vector<Shard> shards_;
  std::vector<Image> images_;
  std::vector<Place> places_;
  std::vector<int32_t> classes_;
  SampleStore store_;
  int64_t labels_per_image_ = 0;
  bool packed_texts_ = false;
};

}  // namespace permafrost
